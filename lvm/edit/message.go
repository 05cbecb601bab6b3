package edit

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"udm/lvm"
	"udm/lvm/text"
	"udm/targets/thin/thinmeta"
)

// settle brings a pool to the state of the committed text: messages that it did not get
// are sent now. It returns the ids of the pool's devices.
func (ed *Edit) settle(pool *lvm.LV) (ids []uint32, err error) {
	k := pool.Segments[0].Kind.(*lvm.ThinPool)
	if slices.Contains(ed.blank, k.Metadata) {
		return nil, nil // the pool is new
	}
	changed := slices.Contains(ed.tell, pool.Name)
	if ed.poolInUse(pool) {
		if !changed && len(k.Messages) > 0 {
			return nil, fmt.Errorf("the pool %s did not get the messages of the last change; activate the group again", pool.Name)
		}
		return nil, nil
	}
	err = ed.withMetadata(pool, k, func(m *thinmeta.Metadata) (err error) {
		if !changed {
			err = ed.send(m, k)
		}
		if err == nil {
			ids, err = m.IDs()
		}
		return err
	})
	if err == nil && !changed {
		err = ed.forget(pool)
	}
	return ids, err
}

// tellPools sends the messages of the committed text, and takes them out of the text.
func (ed *Edit) tellPools() error {
	for _, name := range ed.tell {
		pool := ed.group.LV(name)
		k := pool.Segments[0].Kind.(*lvm.ThinPool)
		if err := ed.tellPool(pool, k); err != nil {
			return err
		}
		if err := ed.forget(pool); err != nil {
			return err
		}
	}
	return nil
}

func (ed *Edit) tellPool(pool *lvm.LV, k *lvm.ThinPool) error {
	if ed.poolInUse(pool) {
		return ed.pools.Tell(ed.after(), pool)
	}
	return ed.withMetadata(pool, k, func(m *thinmeta.Metadata) error { return ed.send(m, k) })
}

// poolInUse reports whether a pool or one of its volumes is active.
func (ed *Edit) poolInUse(pool *lvm.LV) bool {
	return ed.inUse(pool) || slices.ContainsFunc(ed.group.Users(pool), ed.inUse)
}

// forget takes the messages of a pool out of the text.
func (ed *Edit) forget(pool *lvm.LV) error {
	s := pool.Text.Section(segmentName(1))
	s.Entries = slices.DeleteFunc(s.Entries, func(e text.Entry) bool { return e.Section != nil && strings.HasPrefix(e.Name, "message") })
	return ed.decode()
}

// withMetadata calls do with the metadata of a pool, which is formatted if the pool was
// never active.
func (ed *Edit) withMetadata(pool *lvm.LV, k *lvm.ThinPool, do func(*thinmeta.Metadata) error) error {
	d, err := ed.after().Open(ed.env, k.Metadata, true)
	if err == nil {
		var m *thinmeta.Metadata
		m, err = thinmeta.Open(ed.env, d, thinmeta.Options{DataBlockSize: uint32(k.ChunkSize), Format: k.Transaction <= 1})
		if err == nil {
			err = errors.Join(do(m), m.Close())
		}
		err = errors.Join(err, d.Close())
	}
	if errors.Is(err, syscall.EPERM) {
		err = errors.New("its metadata is empty, and the group's text says that it was in use")
	}
	if err != nil {
		return fmt.Errorf("the pool %s: %w", pool.Name, err)
	}
	return nil
}

// send sends a pool the messages of the text, if it did not get them.
func (ed *Edit) send(m *thinmeta.Metadata, k *lvm.ThinPool) error {
	id := m.TransactionID()
	switch {
	case m.NeedsCheck():
		return errors.New("its metadata needs a check; udm lvm activate --read-only lets you save its content")
	case id == k.Transaction:
		return nil
	case len(k.Messages) == 0 || id+1 != k.Transaction:
		return fmt.Errorf("it is at transaction %d, and the group's text at %d: they are from different times", id, k.Transaction)
	}
	for _, msg := range k.Messages {
		if err := ed.carryOut(m, msg); err != nil {
			return err
		}
	}
	if err := m.SetTransactionID(id, k.Transaction); err != nil {
		return err
	}
	return m.Commit()
}

// carryOut carries out a message, which may have been carried out already.
func (ed *Edit) carryOut(m *thinmeta.Metadata, msg lvm.Message) error {
	if msg.Create == "" {
		return unless(syscall.ENODATA, m.DeleteThin(uint32(msg.Delete)))
	}
	v, err := ed.thin(msg.Create)
	if err != nil {
		return err
	}
	if v.Origin == "" {
		return unless(syscall.EEXIST, m.CreateThin(v.Device))
	}
	origin, err := ed.thin(v.Origin)
	if err != nil {
		return err
	}
	return unless(syscall.EEXIST, m.CreateSnap(v.Device, origin.Device))
}

// unless returns err unless it is that one.
func unless(done syscall.Errno, err error) error {
	if errors.Is(err, done) {
		return nil
	}
	return err
}

// thin returns the thin volume with a name.
func (ed *Edit) thin(name string) (*lvm.Thin, error) {
	if l := ed.group.LV(name); l != nil {
		if k, ok := l.Segments[0].Kind.(*lvm.Thin); ok {
			return k, nil
		}
	}
	return nil, fmt.Errorf("there is a message about %q, which is not a thin volume", name)
}
