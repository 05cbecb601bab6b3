package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"udm/ctl/server/frontend"
	"udm/ctl/server/handover"
	"udm/ctl/server/service"
	"udm/ctl/server/state"
)

// Limits of a handover.
const (
	calmTime  = time.Second           // for clients in the handshake and for commands; I/O goes on
	stillTime = 50 * time.Millisecond // for I/O in flight to end; other I/O waits
	attempts  = 50                    // to find such a moment
	pauseTime = 100 * time.Millisecond
	handTime  = 10 * time.Second // when there is no way back to the same service
)

// giving is the handing over to another process: see package handover for its steps.
type giving struct {
	*daemon
	s    *service.Service
	list []frontend.Server
	fail func(error)
	next *handover.Successor

	first  handover.Group     // goes with the front ends
	rest   []handover.Group   // follow one after the other
	bundle *handover.Bundle   // of the first group
	since  time.Time          // when the first group began to wait
	theirs []*handover.Bundle // what is kept of those that the new process has
	left   []*handover.Bundle // what is closed here, and not taken there

	// What the log tells.
	devices, together int           // all; the most at once
	longest           time.Duration // that I/O to a device waited
}

// handOver starts a process and hands over to it. The error is errHandedOver if that has taken
// over, and errAgain if the service is closed and another one of this process is to go on with
// what is left; else the service serves on with the front ends of the list.
func (d *daemon) handOver(ctx context.Context, s *service.Service, list []frontend.Server, a ask, fail func(error)) (left []*handover.Bundle, now []frontend.Server, err error) {
	next, err := d.startNext(s, a)
	if err != nil {
		d.refused(a, err)
		return nil, list, nil
	}
	d.step("the old one has greeted")
	began := time.Now()
	g := &giving{daemon: d, s: s, list: slices.Clone(list), fail: fail, next: next}
	if err := g.still(ctx); err != nil {
		next.Kill()
		d.refused(a, err)
		return nil, g.list, nil
	}
	d.lingerFor(g.list)
	if a.err = g.all(ctx); a.err != nil {
		d.cfg.Log.Error("the daemon is not replaced, and takes back what it has handed over", "reason", oneLine(a.err))
		d.failed = &a
		return g.left, nil, errAgain
	}
	d.cfg.Log.Info("replaced", "pid", next.PID(), "devices", g.devices, "together", g.together,
		"stalled", g.longest.Round(time.Millisecond), "took", time.Since(began).Round(time.Millisecond))
	a.answer(next.PID(), nil)
	return nil, nil, errHandedOver
}

// refused tells why the daemon serves on.
func (d *daemon) refused(a ask, err error) {
	d.cfg.Log.Error("the daemon is not replaced", "reason", oneLine(err))
	a.answer(0, err)
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

// each calls do for the front ends of a kind, side by side, with a limit of time.
func each[M frontend.Mover](list []frontend.Server, limit time.Duration, do func(context.Context, M) error) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), limit, fmt.Errorf("not within %v", limit))
	defer cancel()
	errs := make([]error, len(list))
	var all sync.WaitGroup
	for i, f := range list {
		if m, ok := f.(M); ok {
			all.Go(func() { errs[i] = do(ctx, m) })
		}
	}
	all.Wait()
	return errors.Join(errs...)
}

// refusal is an error of the new process, which another attempt would not change.
type refusal struct{ error }

// still finds a moment at which all I/O of the first group ends soon, and has the front ends
// hand it over then. After an error all front ends serve, some made anew.
func (g *giving) still(ctx context.Context) (err error) {
	for range attempts {
		g.bundle = new(handover.Bundle)
		if err = g.attempt(); err == nil {
			g.step("the old one is still")
			return nil
		}
		if rerr := g.resume(); rerr != nil {
			return errors.Join(err, rerr)
		}
		var r refusal
		if errors.As(err, &r) {
			return r.error
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
	return err
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(pauseTime):
		return nil
	}
}

func (g *giving) attempt() error {
	err := each(g.list, calmTime, func(ctx context.Context, m frontend.Mover) error { return m.Calm(ctx, g.bundle) })
	g.step("the old one is calm")
	if err = errors.Join(err, g.s.Flush()); err != nil {
		return err
	}
	if err := g.prepare(); err != nil {
		return refusal{err}
	}
	g.first, g.rest = g.s.Groups()
	limit := stillTime
	if g.s.Waiting() { // it fails once nothing new comes, and goes along
		limit = handTime
		defer time.AfterFunc(stillTime/2, g.s.FailSuspended).Stop()
	}
	g.since = time.Now()
	return each(g.list, limit, func(ctx context.Context, m frontend.Mover) error { return m.Hand(ctx, g.bundle, g.first) })
}

// prepare has the new process read what is saved.
func (g *giving) prepare() error {
	b := new(handover.Bundle)
	defer b.Close()
	lock, err := dup(g.lock)
	if err == nil {
		err = errors.Join(b.Put(lockPart, struct{}{}, lock), b.Put(managedPart, g.managed))
	}
	if err != nil {
		return err
	}
	return g.next.Do(handover.Prepare, b)
}

// resume serves on with the same service: front ends that are calm, or have handed over, are
// started again, themselves or made anew.
func (g *giving) resume() error {
	fresh, err := g.frontEnds(g.s)
	if err != nil {
		return err
	}
	names := g.bundle.Names()
	for i, f := range g.list {
		m, ok := fresh[i].(frontend.Mover)
		if !ok || !slices.Contains(names, f.Name()) && !slices.Contains(names, frontend.SocketPart(f.Name())) {
			continue
		}
		if same, ok := f.(frontend.Divider); ok {
			m = same
		}
		g.list[i] = m
		err = errors.Join(err, m.Take(g.bundle), m.Start(g.fail))
	}
	g.s.FrontEnd.Replace(g.list)
	return err
}

// all hands over everything. After an error the service is closed, the new process serves
// nothing, and what is left is to be taken back.
func (g *giving) all(ctx context.Context) error {
	g.s.EndOperations()
	if err := g.give(handover.Take, g.bundle, g.first, g.since); err != nil {
		g.next.Kill()
		g.left = append(g.left, g.bundle)
		return g.close(err)
	}
	err := g.others(ctx)
	if err == nil {
		err = g.s.Close()
	}
	if err == nil {
		g.step("the old one has handed over all")
		_ = g.next.Finish() // it may have died, which is nothing that this process can mend
		g.bundle.Close()
		return nil
	}
	g.step("the new one refuses")
	if b, rerr := g.next.Return(); rerr == nil {
		g.bundle.Close()
		g.left = append(g.left, b)
	} else {
		err = fmt.Errorf("%w; the new process does not give back what it has, and its clients are disconnected: %w", err, rerr)
		g.left = append(g.left, g.theirs...)
	}
	g.tell(os.Getpid())
	return g.close(err)
}

// close closes what is here still, to be taken back by another service.
func (g *giving) close(why error) error {
	b := new(handover.Bundle)
	err := each(g.list, handTime, func(ctx context.Context, m frontend.Divider) error { return m.Hand(ctx, b, nil) })
	g.left = append(g.left, b)
	return errors.Join(why, err, g.s.Hand(b, nil), g.s.Close())
}

// tell tells which process is the daemon.
func (g *giving) tell(pid int) {
	if g.cfg.HandedOver != nil {
		g.cfg.HandedOver(pid)
	}
}

// give closes the devices of a group, whose clients are in a bundle since a moment, and has
// the new process serve them.
func (g *giving) give(o handover.Order, b *handover.Bundle, group handover.Group, since time.Time) error {
	if err := g.s.Hand(b, group); err != nil {
		return err
	}
	g.step("the old one has closed: " + string(o))
	if err := g.next.Do(o, b); err != nil {
		return err
	}
	g.step("the new one is ready: " + string(o))
	if o == handover.Take {
		g.tell(g.next.PID())
	}
	_ = g.next.Go() // that it has died shows when it is asked next
	b.Keep(lasts)
	g.theirs = append(g.theirs, b)
	g.devices, g.together, g.longest = g.devices+len(group), max(g.together, len(group)), max(g.longest, time.Since(since))
	return nil
}

// lasts reports whether a part is needed if the new process dies with its clients: how the
// devices were, and the sockets for new clients.
func lasts(part string) bool { return part == service.DevicesPart || frontend.IsSocketPart(part) }

// others hands over the groups after the first, those with much I/O in a later round.
func (g *giving) others(ctx context.Context) (err error) {
	for range attempts {
		var busy []handover.Group
		for _, group := range g.rest {
			moved, oerr := g.other(group)
			switch {
			case oerr != nil && moved:
				return oerr
			case oerr != nil:
				busy, err = append(busy, group), oerr
			}
		}
		if len(busy) == 0 {
			return nil
		}
		g.rest = busy
		if err := pause(ctx); err != nil {
			return err
		}
	}
	return err
}

// other hands over a group. If it has not moved, its clients are served on here.
func (g *giving) other(group handover.Group) (moved bool, err error) {
	b, since := new(handover.Bundle), time.Now()
	if err := each(g.list, stillTime, func(ctx context.Context, m frontend.Divider) error { return m.Hand(ctx, b, group) }); err != nil {
		return false, errors.Join(err, g.serveOn(b))
	}
	g.step("a group is still")
	if err := g.give(handover.Next, b, group, since); err != nil {
		g.left = append(g.left, b)
		return true, err
	}
	return true, nil
}

// serveOn serves clients in a bundle again.
func (g *giving) serveOn(b *handover.Bundle) (err error) {
	for _, f := range g.list {
		if m, ok := f.(frontend.Divider); ok {
			serve, merr := m.More(b)
			err = errors.Join(err, merr)
			serve()
		}
	}
	return err
}
