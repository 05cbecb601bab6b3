//go:build linux

package vhost

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"udm/export/internal/virtq"
)

// Live migration: while the guest runs, the front end copies its memory and needs to know
// which pages change meanwhile. With LOG_ALL among the features, rings mark each page that
// they or their requests write, in a bitmap that the front end shares (SET_LOG_BASE):
// little-endian, bit n for the page at guest address n*logPage.
//
// A page is marked after it was written, by an atomic operation that is a full barrier. So
// whoever finds a page unmarked and copies it copies what was written, or finds it marked
// the next time. What is in flight when logging begins is marked when it ends. A ring that
// has stopped has marked everything.

const logPage = 4096

// dirty is the log of a ring; its worker uses it.
type dirty struct {
	log    *mapping // nil: nothing is marked
	marked bool     // since the last notification
	told   notifier // of the front end, after pages were marked
}

// setLogBase replaces the bitmap, also under running rings.
func (s *session) setLogBase(m *message, f fds) error {
	d := m.log
	if s.protocol&protoLog == 0 || len(f) != 1 {
		return errors.New("the log of written pages is not shared memory")
	}
	if d.size%8 != 0 || d.offset%8 != 0 {
		return fmt.Errorf("a log of written pages of %d bytes at %d", d.size, d.offset)
	}
	p, err := mapRegion(regionDesc{size: d.size, offset: d.offset}, f[0])
	if err != nil {
		return err
	}
	old := s.pages
	s.pages = p
	p.users.Store(1)
	s.applyLog()
	if old != nil {
		old.release()
	}
	m.value = 0
	return nil
}

// setLogFD sets the eventfd by which the front end learns of marked pages.
func (s *session) setLogFD(_ *message, f fds) error {
	if len(f) != 1 {
		return errors.New("the eventfd is missing")
	}
	n, err := newNotifier(f.take(0))
	if err != nil {
		return err
	}
	old := s.logged
	s.logged = n
	s.applyLog()
	old.close()
	return nil
}

// applyLog makes all rings use the log, or none.
func (s *session) applyLog() {
	d := dirty{told: s.logged}
	if s.features&featLogAll != 0 {
		d.log = s.pages
	}
	for _, r := range s.rings {
		r.between(func() { r.dirty = d })
	}
}

// mark marks the pages of a piece of guest memory.
func (w *worker) mark(mem *memory, p []byte) {
	d := &w.ring.dirty
	if d.log == nil || len(p) == 0 {
		return
	}
	at := uintptr(unsafe.Pointer(&p[0]))
	for _, m := range mem.maps {
		if off := at - uintptr(unsafe.Pointer(&m.Mem[0])); off < uintptr(len(m.Mem)) {
			first := m.desc.guest + uint64(off)
			d.markPages(first/logPage, (first+uint64(len(p))-1)/logPage)
			return
		}
	}
}

// markPages marks pages from first to last. The front end leaves out pages of which its log
// has no bits.
func (d *dirty) markPages(first, last uint64) {
	bits := d.log.Mem
	for n := first; n <= last && n/8 < uint64(len(bits)); n++ {
		word := (*uint32)(unsafe.Pointer(&bits[n/32*4]))
		atomic.OrUint32(word, 1<<(n%32))
	}
	d.marked = true
}

// markRing marks what the device writes of a ring, and tells the front end about all marks.
func (w *worker) markRing() {
	d := &w.ring.dirty
	if d.log == nil {
		return
	}
	mem, desc := w.view.mem, 0
	rings := w.rings(mem)
	if w.packed() {
		desc, _, _ = virtq.Lens(w.ring.num, true)
	}
	w.mark(mem, rings.Desc[:desc])
	w.mark(mem, rings.Used)
	if d.marked {
		d.marked = false
		d.told.tell()
	}
}

// markJob marks what a request has written.
func (w *worker) markJob(j *job) {
	if w.ring.dirty.log == nil {
		return
	}
	if j.op == typeIn || j.op == typeID {
		for _, p := range j.data {
			w.mark(j.view.mem, p)
		}
	}
	w.mark(j.view.mem, j.status)
}
