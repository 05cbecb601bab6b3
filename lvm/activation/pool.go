package activation

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"udm/ctl"
	"udm/lvm"
	"udm/targets/thin"
)

// pool brings an active pool to the state of its group's text.
func (a *activation) pool(ctx context.Context, d lvm.Device) error {
	k := a.g.LV(d.LV).Segments[0].Kind.(*lvm.ThinPool)
	st, err := a.poolStatus(ctx, d.Name)
	switch {
	case err != nil:
		return err
	case st.State != thin.Figures:
		return fmt.Errorf("the pool has failed (%s); look at its metadata: udm thin check", st.State)
	case a.o.Mode != ReadOnly && st.NeedsCheck:
		return errors.New("the pool needs a check; activate the group read-only to save its content")
	case st.TransactionID == k.Transaction:
		return nil
	case len(k.Messages) == 0 || st.TransactionID+1 != k.Transaction:
		return differentTimes(st.TransactionID, k.Transaction)
	case a.o.Mode == ReadOnly:
		for _, m := range k.Messages {
			a.pending[m.Create] = true
		}
		return nil
	}
	return a.send(ctx, d.Name, k, st.TransactionID)
}

func differentTimes(pool, group uint64) error {
	return fmt.Errorf("the pool is at transaction %d, and the group's metadata at %d: they are from different times", pool, group)
}

func (a *activation) poolStatus(ctx context.Context, name string) (*thin.PoolStatus, error) {
	d, err := a.s.Device(ctx, ctl.Query{Ref: ctl.Ref{Name: name}, With: []ctl.With{ctl.WithStatus}})
	if err != nil {
		return nil, err
	}
	if len(d.Status) != 1 {
		return nil, errors.New("the pool has no status")
	}
	return thin.ParsePoolStatus(d.Status[0].Params)
}

// send sends a pool the messages that a commit of the group left for it. They may
// have been executed already.
func (a *activation) send(ctx context.Context, name string, k *lvm.ThinPool, from uint64) error {
	for _, m := range k.Messages {
		text, done, err := a.message(m)
		if err != nil {
			return err
		}
		if err := a.tell(ctx, name, text); err != nil && !errors.Is(err, done) {
			return fmt.Errorf("%s: %w", text, err)
		}
	}
	return a.tell(ctx, name, fmt.Sprintf("set_transaction_id %d %d", from, k.Transaction))
}

func (a *activation) tell(ctx context.Context, name, text string) error {
	_, err := a.s.Message(ctx, ctl.Message{Ref: ctl.Ref{Name: name}, Text: text})
	return err
}

// message returns a message in the target's words, and the error that means it was
// executed already.
func (a *activation) message(m lvm.Message) (text string, done, err error) {
	if m.Create == "" {
		return fmt.Sprintf("delete %d", m.Delete), syscall.ENODATA, nil
	}
	v, err := a.thin(m.Create)
	if err != nil {
		return "", nil, err
	}
	if v.Origin == "" {
		return fmt.Sprintf("create_thin %d", v.Device), syscall.EEXIST, nil
	}
	origin, err := a.thin(v.Origin)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("create_snap %d %d", v.Device, origin.Device), syscall.EEXIST, nil
}

// thin returns the thin volume with a name.
func (a *activation) thin(name string) (*lvm.Thin, error) {
	if l := a.g.LV(name); l != nil {
		if k, ok := l.Segments[0].Kind.(*lvm.Thin); ok {
			return k, nil
		}
	}
	return nil, fmt.Errorf("the pool has a message about %q, which is not a thin volume", name)
}
