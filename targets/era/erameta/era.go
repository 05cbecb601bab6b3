package erameta

import (
	"syscall"

	"udm/pdata"
)

// Rollover ends the running era, if there is one, and begins the next.
func (m *Metadata) Rollover() error {
	return m.sb.Change(func() error {
		if err := m.archive(); err != nil {
			return err
		}
		return m.begin()
	})
}

// Archive ends the running era. Nothing can be marked until Rollover.
func (m *Metadata) Archive() error { return m.sb.Change(m.archive) }

func (m *Metadata) archive() (err error) {
	s := &m.super
	if s.Current.Root == 0 {
		return nil
	}
	if s.Current.Root, err = m.current.Flush(s.Current.Root); err != nil {
		return pdata.In("writeset", err)
	}
	if s.Sets, err = m.sets.Insert(s.Sets, s.Current, uint64(s.Era)); err != nil {
		return pdata.In("writesets", err)
	}
	s.Current.Root = 0
	return nil
}

func (m *Metadata) begin() (err error) {
	s := &m.super
	w := Writeset{Bits: s.Blocks}
	if w.Root, err = m.current.Empty(); err != nil {
		return err
	}
	if w.Root, err = m.current.Resize(w.Root, 0, uint64(w.Bits), false); err != nil {
		return pdata.In("writeset", err)
	}
	s.Current = w
	s.Era++
	return nil
}

// Mark puts blocks into the writeset of the running era. fresh reports whether one of
// them was not in it, or not durably; then it is after the next commit.
func (m *Metadata) Mark(blocks []uint32) (fresh bool, err error) {
	fresh = m.sb.Doubtful()
	err = m.sb.Change(func() error {
		for _, b := range blocks {
			added, err := m.mark(b)
			if err != nil {
				return pdata.In("writeset", err)
			}
			fresh = fresh || added
		}
		return nil
	})
	return fresh, err
}

func (m *Metadata) mark(b uint32) (fresh bool, err error) {
	w := &m.super.Current
	if w.Root == 0 || b >= w.Bits {
		return false, syscall.EINVAL
	}
	var set bool
	if w.Root, set, err = m.current.Test(w.Root, uint64(b)); err != nil || set {
		return false, err
	}
	w.Root, err = m.current.Set(w.Root, uint64(b))
	return err == nil, err
}

// Resize changes the number of blocks of the device; new ones were never written. The
// running era's writeset keeps its size until Rollover.
func (m *Metadata) Resize(blocks uint32) error {
	s := &m.super
	if blocks == s.Blocks {
		return nil
	}
	return m.sb.Change(func() (err error) {
		s.Eras, err = m.eras.Resize(s.Eras, uint64(s.Blocks), uint64(blocks), 0)
		s.Blocks = blocks
		return pdata.In("era array", err)
	})
}

// digest is the archived writeset that is being digested.
type digest struct {
	busy bool
	era  uint64
	set  Writeset
	next uint32 // its first bit that was not looked at
	bits *pdata.Bitset
}

// A step of a digest.
const (
	maxSet    = 100     // blocks that get an era
	maxTested = 1 << 14 // bits that are looked at
)

// Digest does a step of digesting the oldest archived writeset. more reports whether
// there is more to do.
func (m *Metadata) Digest() (more bool, err error) {
	if !m.digest.busy {
		if err := m.sb.Changeable(); err != nil {
			return false, err
		}
		if more, err = m.nextDigest(); !more || err != nil {
			return false, pdata.In("writesets", err)
		}
	}
	return true, m.sb.Change(m.digestStep)
}

func (m *Metadata) nextDigest() (found bool, err error) {
	era, found, err := m.sets.Lowest(m.super.Sets)
	if err != nil || !found {
		return false, err
	}
	set, err := m.sets.Lookup(m.super.Sets, era)
	m.digest = digest{busy: err == nil, era: era, set: set, bits: pdata.NewBitset(m.tm)}
	return err == nil, err
}

func (m *Metadata) digestStep() (err error) {
	d, s := &m.digest, &m.super
	end := min(d.set.Bits, s.Blocks)
	stop := min(uint64(end), uint64(d.next)+maxTested)
	for n := 0; uint64(d.next) < stop && n < maxSet; d.next++ {
		_, set, err := d.bits.Test(d.set.Root, uint64(d.next))
		if err != nil {
			return pdata.In("writeset", err)
		}
		if !set {
			continue
		}
		n++
		if s.Eras, err = m.eras.Set(s.Eras, uint64(d.next), uint32(d.era)); err != nil {
			return pdata.In("era array", err)
		}
	}
	if d.next < end {
		return nil
	}
	s.Sets, err = m.sets.Remove(s.Sets, d.era)
	d.busy = false
	return pdata.In("writesets", err)
}

// Hold begins a new era, commits, and makes a metadata snapshot of that. EINVAL if
// there is one already.
func (m *Metadata) Hold() error {
	if err := m.sb.Changeable(); err != nil {
		return err
	}
	if m.Held() != 0 {
		return syscall.EINVAL
	}
	if err := m.Rollover(); err != nil {
		return err
	}
	if err := m.Commit(); err != nil {
		return err
	}
	return m.sb.Change(func() error { return m.sb.Hold(m.super.Sets, m.super.Eras) })
}

// Release releases the metadata snapshot. EINVAL if there is none.
func (m *Metadata) Release() error {
	if err := m.sb.Changeable(); err != nil {
		return err
	}
	if m.Held() == 0 {
		return syscall.EINVAL
	}
	return m.sb.Change(func() error { return pdata.In("metadata snapshot", m.sb.Release(m.delHeld)) })
}

func (m *Metadata) delHeld(p []byte) error {
	var s Super
	s.Decode(p)
	if err := m.sets.Del(s.Sets); err != nil {
		return err
	}
	return m.eras.Del(s.Eras)
}
