package service

import (
	"sync"
	"time"

	"udm/dm"
)

// lowDisks are the disks whose files may find no space, as far as that has been told.
type lowDisks struct {
	mu   sync.Mutex
	told map[dm.Number]bool // guarded by mu
	next time.Duration      // guarded by mu; when to look again
}

// lookEvery is how often to look: there may be thousands.
const lookEvery = time.Minute

func (l *lowDisks) due(now time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now < l.next {
		return false
	}
	l.next = now + lookEvery
	return true
}

// tellLowDisks warns, once, of disks that may find no space, before they do.
func (s *Service) tellLowDisks() {
	if !s.low.due(s.env.Now()) {
		return
	}
	low := make(map[dm.Number]bool)
	for _, d := range s.control.List() {
		for _, n := range d.Deps(false) {
			if r, ok := s.opener.Report(n); ok && r.Lacks > 0 && !low[n] {
				low[n] = true
				s.tellLowDisk(n, d.Name(), r.Free, r.Lacks)
			}
		}
	}
	s.low.mu.Lock()
	s.low.told = low
	s.low.mu.Unlock()
}

func (s *Service) tellLowDisk(n dm.Number, device string, free, lacks uint64) {
	s.low.mu.Lock()
	told := s.low.told[n]
	s.low.mu.Unlock()
	if !told {
		s.log.Warn("the file system of a disk is low on space; free some, or writes will have to wait",
			"device", device, "disk", s.opener.Name(n), "free", free, "lacks", lacks)
	}
}
