package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"time"

	"udm/ctl"
	"udm/ctl/server/frontend"
	"udm/ctl/server/handover"
	"udm/ctl/server/service"
	"udm/ctl/server/state"
)

// ask is a request to replace the daemon, and where its answer goes.
type ask struct {
	program string
	err     error
	answer  func(pid int, err error)
}

// What ends a service, but not the daemon: it is handed over to another process, or is made
// anew.
var (
	errHandedOver = errors.New("handed over")
	errAgain      = errors.New("to be made again")
)

// askedToReplace takes the request to replace the daemon. Its connection is taken out of
// the front end, which could not be drained while it waits for its answer.
func (d *daemon) askedToReplace(w http.ResponseWriter, r *http.Request) {
	var in ctl.Replace
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	a := ask{program: in.Program, answer: func(pid int, err error) { answerReplace(conn, pid, err) }}
	select {
	case d.asks <- a:
	case <-r.Context().Done():
		a.answer(0, errors.New("the daemon is stopping"))
	}
}

// answerReplace writes the answer to a connection and closes it.
func answerReplace(conn net.Conn, pid int, err error) {
	defer conn.Close()
	status, body := http.StatusOK, any(ctl.Replaced{PID: pid})
	if err != nil {
		status, body = http.StatusConflict, ctl.NewError(err)
	}
	text, err := json.Marshal(body)
	if err != nil {
		return
	}
	r := http.Response{StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Close: true, ContentLength: int64(len(text)),
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(text))}
	_ = r.Write(conn) // who asked may be gone
}

func (d *daemon) step(name string) {
	if d.cfg.Step != nil {
		d.cfg.Step(name)
	}
}

// Parts of the first bundle: the lock of the root, and the names of the sockets that a
// service manager has opened.
const lockPart, managedPart = "lock", "managed"

// inherit takes the lock of the root, from the process before if there is one.
func (d *daemon) inherit() (err error) {
	d.old = d.cfg.Predecessor
	if d.old == nil {
		d.lock, err = lockRoot(d.cfg.Root)
		return err
	}
	err = d.old.Greet(func(g handover.Greeting) error { return checkFormat(g.State, g.Program) })
	if err == nil {
		d.step("the new one has started")
		err = d.receivePrepare()
	}
	return d.refuse(err)
}

func (d *daemon) receivePrepare() error {
	o, b, err := d.old.Receive()
	if err == nil && o != handover.Prepare {
		err = fmt.Errorf("the old process began with %q", o)
	}
	if err != nil {
		return err
	}
	return d.prepared(b)
}

// prepared takes what comes first.
func (d *daemon) prepared(b *handover.Bundle) error {
	files, _, err := b.Take(lockPart, new(struct{}))
	if err == nil && len(files) != 1 {
		err = errors.New("the lock was not handed over")
	}
	if err != nil {
		return err
	}
	if d.lock != nil {
		d.lock.Close()
	}
	d.lock = files[0]
	_, _, err = b.Take(managedPart, &d.managed)
	return err
}

// checkFormat refuses saved state that a newer program has written.
func checkFormat(format int, program string) error {
	if format > state.Format {
		return fmt.Errorf("the saved state has format %d, of udm %s; this program reads up to %d: run a newer one", format, program, state.Format)
	}
	return nil
}

// refuse tells the process that this one was to take over from why it cannot.
func (d *daemon) refuse(err error) error {
	if d.old != nil && err != nil {
		_ = d.old.Refuse(err) // else it sees this process end
		d.old.Close()
	}
	return err
}

// takeOver goes on with what was handed over, by another process or by this one. Another
// process must be able to; this one does what it can.
func (d *daemon) takeOver(ctx context.Context, s *service.Service, list []frontend.Server, from []*handover.Bundle, fail func(error)) error {
	t := &taking{daemon: d, s: s, list: list, old: d.old, mine: make(handover.Group)}
	if err := t.must(s.Prepare()); err != nil {
		return err
	}
	if t.old != nil {
		b, err := t.first()
		if err != nil {
			return err
		}
		from = []*handover.Bundle{b}
	}
	for _, b := range from {
		if err := t.must(t.take(ctx, b)); err != nil {
			return err
		}
	}
	d.step("the new one can serve")
	t.problems = append(t.problems, signLock(d.lock)) // before whoever asked is answered
	if t.old != nil {
		if err := t.old.Ready(); err != nil {
			return err
		}
		d.old = nil
		d.step("the new one may serve")
	}
	if err := s.FrontEnd.Start(fail, list...); err != nil {
		return err
	}
	t.tellTaken()
	if t.old != nil {
		defer t.old.Close()
		if err := t.rest(ctx); err != nil {
			return err
		}
	}
	if err := errors.Join(append(t.problems, s.Complete(ctx))...); err != nil {
		d.cfg.Log.Error("not everything was taken over", "reason", oneLine(err))
	}
	return nil
}

// taking is the taking over.
type taking struct {
	*daemon
	s        *service.Service
	list     []frontend.Server
	old      *handover.Predecessor // nil: this process takes back
	mine     handover.Group        // what was taken
	taken    []func() error        // to be called when it is served
	problems []error               // of what is taken back
}

// must keeps errors for later if this process takes back.
func (t *taking) must(err error) error {
	if err != nil && t.old == nil {
		t.problems = append(t.problems, err)
		return nil
	}
	return err
}

// first receives the first group. errAgain: the old process has not found a moment, and what
// is saved may be another now.
func (t *taking) first() (*handover.Bundle, error) {
	if err := t.old.Refuse(nil); err != nil {
		return nil, err
	}
	t.step("the new one is prepared")
	o, b, err := t.old.Receive()
	switch {
	case err != nil:
		return nil, err
	case o == handover.Prepare:
		return nil, errors.Join(errAgain, t.prepared(b), t.s.Close())
	}
	t.step("the new one has the bundle")
	return b, nil
}

// take takes what was handed over with the front ends.
func (t *taking) take(ctx context.Context, b *handover.Bundle) error {
	g, taken, err := t.s.Take(ctx, b)
	if err := t.must(err); err != nil {
		return err
	}
	t.note(g, taken)
	err = each(t.list, handTime, func(_ context.Context, m frontend.Mover) error {
		if err := m.Take(b); err != nil {
			return fmt.Errorf("%s: %w", m.Name(), err)
		}
		return nil
	})
	if err := t.must(err); err != nil {
		return err
	}
	if names := b.Names(); len(names) > 0 {
		return fmt.Errorf("nothing takes over %q; start the daemon with the options that it has now", names)
	}
	return nil
}

func (t *taking) note(g handover.Group, taken func() error) {
	maps.Copy(t.mine, g)
	if taken != nil {
		t.taken = append(t.taken, taken)
	}
}

// tellTaken ends the taking of what is served now.
func (t *taking) tellTaken() {
	for _, taken := range t.taken {
		t.problems = append(t.problems, taken())
	}
	t.taken = nil
}

// rest takes the other groups. errHandedOver: all was given back.
func (t *taking) rest(ctx context.Context) error {
	for {
		o, b, err := t.old.Receive()
		switch {
		case errors.Is(err, handover.ErrGone):
			t.cfg.Log.Warn("the process before has ended before all was handed over; the other clients connect again", "reason", err)
			return t.old.Ended()
		case err != nil:
			return err // the old process takes back, once this one has ended
		case o == handover.Finish:
			return nil
		case o == handover.Return:
			return t.giveBack()
		}
		t.step("the new one has a group")
		if err := t.more(ctx, b); err != nil {
			return err
		}
	}
}

// more takes a group, or refuses it.
func (t *taking) more(ctx context.Context, b *handover.Bundle) error {
	g, taken, err := t.s.Take(ctx, b)
	if err != nil {
		b.Close()
		return t.old.Refuse(errors.Join(err, t.s.Drop(g)))
	}
	var serves []func()
	for _, f := range t.list {
		if m, ok := f.(frontend.Divider); ok {
			serve, err := m.More(b)
			if err != nil {
				return fmt.Errorf("%s: %w", f.Name(), err)
			}
			serves = append(serves, serve)
		}
	}
	t.step("the new one can serve a group")
	if err := t.old.Ready(); err != nil {
		return err
	}
	t.step("the new one may serve a group")
	for _, serve := range serves {
		serve()
	}
	t.note(g, taken)
	t.tellTaken()
	t.s.Returns()
	return nil
}

// giveBack gives back all that was taken.
func (t *taking) giveBack() error {
	b := new(handover.Bundle)
	t.s.EndOperations()
	defer time.AfterFunc(stillTime, t.s.ComeNoMore).Stop() // who waits for a device asks the old process again
	err := each(t.list, handTime, func(ctx context.Context, m frontend.Mover) error {
		calm, cancel := context.WithTimeout(ctx, calmTime)
		defer cancel()
		return errors.Join(m.Calm(calm, b), m.Hand(ctx, b, nil))
	})
	if err == nil {
		err = t.s.Hand(b, t.mine)
	}
	if err != nil {
		return errors.Join(err, t.old.Refuse(err))
	}
	t.lingerFor(t.list)
	if err := t.old.Give(b); err != nil {
		return err
	}
	return errHandedOver
}

// lingerFor has this process stay until clients that it relays to have left.
func (d *daemon) lingerFor(list []frontend.Server) {
	for _, f := range list {
		if l, ok := f.(interface{ Linger() }); ok {
			d.linger = append(d.linger, l.Linger)
		}
	}
}

// afterwards waits, when another process has taken over, until no client needs this one.
func (d *daemon) afterwards(ctx context.Context) {
	gone := make(chan struct{})
	go func() {
		for _, wait := range d.linger {
			wait()
		}
		close(gone)
	}()
	select {
	case <-gone:
	case <-ctx.Done():
	}
}

// tellFailure answers who asked to replace the daemon, when it serves again.
func (d *daemon) tellFailure() {
	if d.failed != nil {
		d.failed.answer(0, d.failed.err)
		d.failed = nil
	}
}
