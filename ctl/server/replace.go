package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
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

// errHandedOver means that the service is closed, and its clients are in a bundle.
var errHandedOver = errors.New("handed over")

// Limits of a handover.
const (
	calmTime  = time.Second           // for clients in the handshake and for commands; I/O goes on
	stillTime = 50 * time.Millisecond // for I/O in flight to end; other I/O waits
	attempts  = 50                    // to find such a moment
	pauseTime = 100 * time.Millisecond
	handTime  = 10 * time.Second // when there is no way back to the same service
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

// inherit takes the lock of the root, or takes that and all else over.
func (d *daemon) inherit() (from *handover.Bundle, err error) {
	d.old = d.cfg.Predecessor
	if d.old == nil {
		d.lock, err = lockRoot(d.cfg.Root)
		return nil, err
	}
	err = d.old.Greet(func(g handover.Greeting) error { return checkFormat(g.State, g.Program) })
	if err == nil {
		d.step("the new one has started")
		from, err = d.old.Receive()
	}
	if err == nil {
		var files []*os.File
		files, _, err = from.Take(lockPart, new(struct{}))
		if err == nil && len(files) != 1 {
			err = errors.New("the lock was not handed over")
		}
		if err == nil {
			d.lock = files[0]
		}
	}
	if err == nil {
		_, _, err = from.Take(managedPart, &d.managed)
	}
	if err != nil {
		return nil, d.refuse(err)
	}
	d.step("the new one has the bundle")
	return from, nil
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
		d.old.Refuse(err)
	}
	return err
}

// Parts of a bundle: the lock of the root, and the names of the sockets that a service
// manager has opened.
const lockPart, managedPart = "lock", "managed"

// takeOver goes on with what was handed over, by another process or by this one. Another
// process must be able to; this one does what it can.
func (d *daemon) takeOver(ctx context.Context, s *service.Service, list []frontend.Server, from *handover.Bundle, fail func(error)) error {
	var problems []error
	must := func(err error) error {
		if err != nil && d.old == nil {
			problems = append(problems, err)
			return nil
		}
		return err
	}
	if err := must(s.RestoreFrom(ctx, from)); err != nil {
		return err
	}
	for _, f := range list {
		if m, ok := f.(frontend.Mover); ok {
			if err := must(m.Take(from)); err != nil {
				return fmt.Errorf("%s: %w", f.Name(), err)
			}
		}
	}
	if names := from.Names(); len(names) > 0 {
		if err := must(fmt.Errorf("nothing takes over %q; start the daemon with the options that it has now", names)); err != nil {
			return err
		}
	}
	d.step("the new one can serve")
	if d.old != nil {
		if err := d.old.Ready(); err != nil {
			return err
		}
		d.old = nil
		d.step("the new one may serve")
		problems = append(problems, signLock(d.lock))
	}
	if err := s.FrontEnd.Start(fail, list...); err != nil {
		return err
	}
	if err := errors.Join(append(problems, s.TakenOver())...); err != nil {
		d.cfg.Log.Error("not everything was taken over", "reason", oneLine(err))
	}
	return nil
}

// handOver starts a process and hands over to it. The error is errHandedOver if the
// service has been closed for that; else it serves on with the front ends of the list.
func (d *daemon) handOver(ctx context.Context, s *service.Service, list []frontend.Server, a ask, fail func(error)) (*handover.Bundle, []frontend.Server, error) {
	next, err := d.startNext(s, a)
	if err != nil {
		d.cfg.Log.Error("the daemon is not replaced", "reason", err)
		a.answer(0, err)
		return nil, list, nil
	}
	d.step("the old one has greeted")
	began := time.Now()
	b, list, still, err := d.still(ctx, s, list, fail)
	if err != nil {
		next.Kill()
		d.cfg.Log.Error("the daemon is not replaced", "reason", err)
		a.answer(0, err)
		return nil, list, nil
	}
	for _, f := range list {
		if l, ok := f.(interface{ Linger() }); ok {
			d.linger = append(d.linger, l.Linger)
		}
	}
	d.step("the old one is still")
	a.err = d.give(s, list, b, next)
	if a.err == nil {
		d.cfg.Log.Info("replaced", "pid", next.PID(), "prepared", still.Sub(began).Round(time.Millisecond), "stalled", time.Since(still).Round(time.Millisecond))
		a.answer(next.PID(), nil)
		b.Close()
		return nil, nil, errHandedOver
	}
	d.cfg.Log.Error("the daemon is not replaced, and takes back what it has handed over", "reason", a.err)
	d.failed = &a
	return b, nil, errHandedOver
}

func (d *daemon) startNext(s *service.Service, a ask) (*handover.Successor, error) {
	if d.cfg.Successor == nil {
		return nil, errors.New("this daemon cannot start another one; restart it")
	}
	if err := s.Movable(); err != nil {
		return nil, err
	}
	return handover.Start(d.cfg.Successor(a.program), handover.NewGreeting(d.cfg.Program, state.Format))
}

// each calls do for all movers, side by side, with a limit of time.
func (d *daemon) each(list []frontend.Server, limit time.Duration, do func(context.Context, frontend.Mover) error) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), limit, fmt.Errorf("not within %v", limit))
	defer cancel()
	errs := make([]error, len(list))
	var all sync.WaitGroup
	for i, f := range list {
		if m, ok := f.(frontend.Mover); ok {
			all.Go(func() { errs[i] = do(ctx, m) })
		}
	}
	all.Wait()
	return errors.Join(errs...)
}

// still finds a moment at which all I/O ends soon, and has the front ends hand over then.
// since is when I/O began to wait. After an error all front ends serve, some made anew.
func (d *daemon) still(ctx context.Context, s *service.Service, list []frontend.Server, fail func(error)) (b *handover.Bundle, now []frontend.Server, since time.Time, err error) {
	for range attempts {
		b = new(handover.Bundle)
		if since, err = d.attempt(s, list, b); err == nil {
			return b, list, since, nil
		}
		var rerr error
		if list, rerr = d.resume(s, list, b, fail); rerr != nil {
			return nil, list, since, errors.Join(err, rerr)
		}
		select {
		case <-ctx.Done():
			return nil, list, since, context.Cause(ctx)
		case <-time.After(pauseTime):
		}
	}
	return nil, list, since, err
}

func (d *daemon) attempt(s *service.Service, list []frontend.Server, b *handover.Bundle) (since time.Time, err error) {
	_ = d.each(list, calmTime, func(ctx context.Context, m frontend.Mover) error { m.Calm(ctx); return nil })
	d.step("the old one is calm")
	if err := errors.Join(s.Flush(), s.Describe(b)); err != nil {
		return since, err
	}
	if since = time.Now(); s.Waiting() {
		return since, d.withdraw(s, list, b)
	}
	return since, d.each(list, stillTime, handTo(b))
}

func handTo(b *handover.Bundle) func(context.Context, frontend.Mover) error {
	return func(ctx context.Context, m frontend.Mover) error { return m.Hand(ctx, b) }
}

// withdraw has the front ends hand over while I/O waits in suspended devices: it fails
// there once nothing new comes, and goes along.
func (d *daemon) withdraw(s *service.Service, list []frontend.Server, b *handover.Bundle) error {
	failed := time.AfterFunc(stillTime/2, s.FailSuspended)
	defer failed.Stop()
	return d.each(list, handTime, handTo(b))
}

// resume serves on with the same service: front ends that have handed over are made anew.
func (d *daemon) resume(s *service.Service, list []frontend.Server, b *handover.Bundle, fail func(error)) ([]frontend.Server, error) {
	fresh, err := d.frontEnds(s)
	if err != nil {
		return list, err
	}
	handed := b.Names()
	now := make([]frontend.Server, len(list))
	for i, f := range list {
		now[i] = f
		for _, name := range handed {
			if name != f.Name() {
				continue
			}
			now[i] = fresh[i]
			err = errors.Join(err, fresh[i].(frontend.Mover).Take(b), fresh[i].Start(fail))
		}
	}
	s.FrontEnd.Replace(now)
	return now, err
}

// give closes the service and gives the next process the bundle. After an error that
// process is dead.
func (d *daemon) give(s *service.Service, list []frontend.Server, b *handover.Bundle, next *handover.Successor) error {
	s.EndOperations()
	for _, f := range list {
		if _, ok := f.(frontend.Mover); !ok {
			_ = f.Close() // its clients come again
		}
	}
	lock, err := dup(d.lock)
	if err == nil {
		err = errors.Join(b.Put(lockPart, struct{}{}, lock), b.Put(managedPart, d.managed))
	}
	if err = errors.Join(err, s.Hand(b)); err != nil {
		next.Kill()
		return err
	}
	d.step("the old one has closed its devices")
	if err := next.Give(b); err != nil {
		return err
	}
	d.step("the new one is ready")
	if d.cfg.HandedOver != nil {
		d.cfg.HandedOver(next.PID())
	}
	_ = next.Go() // it may have died, which is nothing that this process can mend
	return nil
}

// afterwards waits, when another process has taken over, until no client needs this one.
// If left is not nil, this one goes on.
func (d *daemon) afterwards(ctx context.Context, left *handover.Bundle) error {
	if left != nil {
		for _, name := range []string{lockPart, managedPart} { // this process has both
			if _, _, err := left.Take(name, new(any)); err != nil {
				return err
			}
		}
		return nil
	}
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
	return nil
}

// tellFailure answers who asked to replace the daemon, when it serves again.
func (d *daemon) tellFailure() {
	if d.failed != nil {
		d.failed.answer(0, d.failed.err)
		d.failed = nil
	}
}
