package writecache

import (
	"strings"
	"syscall"

	"udm/blk"
	"udm/dm"
)

func (w *writecache) Status(kind dm.StatusKind, _ dm.StatusFlags) string {
	if kind == dm.TableText {
		l := *w.line
		l.Origin, l.Cache = w.origin.Name(), w.fast.Name()
		return l.String()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.stats
	s.Failed, s.Blocks, s.Writeback = w.err != nil, w.super.Blocks, uint64(w.writing)
	if w.freeSet != nil {
		s.Free = uint64(w.freeSet.size)
	}
	return s.String()
}

// Message carries out a message.
func (w *writecache) Message(args []string) (string, error) {
	do := map[string]func() error{"flush": w.flush, "flush_on_suspend": w.flushOnSuspend, "cleaner": w.clean, "clear_stats": w.clearStats}[strings.ToLower(args[0])]
	switch {
	case do == nil:
		return "", dm.Errorf(syscall.EINVAL, "unrecognised message received: %s", args[0])
	case len(args) != 1:
		return "", invalid("wrong number of message arguments")
	}
	return "", do()
}

// flush writes back what is in the cache now.
func (w *writecache) flush() error {
	w.mu.Lock()
	stopped, err := w.stopped, w.err
	w.mu.Unlock()
	switch {
	case stopped:
		return dm.Errorf(syscall.EBUSY, "the device is suspended")
	case err == nil:
		err = w.writeBackAll()
	}
	if err != nil {
		return dm.Errorf(blk.StatusOf(err).Errno(), "not everything could be written back: %v", err)
	}
	return nil
}

func (w *writecache) flushOnSuspend() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flushLast = true
	return nil
}

func (w *writecache) clean() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.becomeCleaner()
	w.queue.Queue(w.passWork)
	return nil
}

func (w *writecache) clearStats() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stats = Status{}
	return nil
}
