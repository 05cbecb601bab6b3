package server

import (
	"context"
	"errors"
	"strings"
	"time"

	"udm/ctl/server/handover"
	"udm/ctl/server/service"
)

// errGivenUp means that the daemon did not end in order.
var errGivenUp = errors.New("the daemon ended before everything was flushed and closed; its log says why")

// grace is how long the daemon may take to stop once it is told to hurry.
const grace = time.Second

// end stops operations on volumes, the front ends and then the service:
//
//	draining ── clients have finished ──────────────► closing ──► ended
//	    └────── 4/5 of the time is over, or hurry ──► cut off: I/O that waits in
//	                suspended devices fails ── the rest is over ──► given up
func end(s *service.Service, cfg Config) error {
	if cfg.Drain == 0 {
		cfg.Drain = 10 * time.Second
	}
	patience, cancel := context.WithTimeout(context.Background(), cfg.Drain/5*4)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		s.EndOperations()
		if err := s.FrontEnd.Drain(patience); err != nil {
			cfg.Log.Warn("clients were cut off", "reason", oneLine(err))
		}
		ended <- keep(s, cfg.Root, s.Close())
	}()
	last := time.NewTimer(cfg.Drain + cfg.slack)
	defer last.Stop()
	select {
	case err := <-ended:
		return err
	case <-cfg.Hurry:
		cfg.Log.Warn("told to stop at once")
		last.Reset(grace)
	case <-patience.Done():
	}
	cancel()
	go s.FailSuspended() // it may wait too, and is then given up with the rest
	select {
	case err := <-ended:
		return err
	case <-last.C:
	}
	giveUp(s, cfg)
	return errGivenUp
}

// keep gives what is in use to the keeper of the root, if all was flushed and closed. Else
// its users get errors, as they may have lost writes.
func keep(s *service.Service, root string, err error) error {
	b := s.Kernel().Kept()
	if b == nil {
		return err
	}
	defer b.Close()
	if err != nil {
		return err
	}
	return handover.Keep(root, b)
}

// giveUp logs what is left.
func giveUp(s *service.Service, cfg Config) {
	for _, name := range s.FrontEnd.Unfinished() {
		cfg.Log.Error("given up: clients or their I/O did not end", "front_end", name)
	}
	for _, name := range s.Unflushed() {
		cfg.Log.Error("given up: the device was not flushed and closed", "device", name)
	}
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
