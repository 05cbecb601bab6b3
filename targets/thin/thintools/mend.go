package thinmeta

import (
	"udm/blk"
	"udm/env"
)

// Mend sets right what can be without loss, in one transaction: data and
// metadata blocks that Check found leaked become free, and the needs_check flag
// is cleared. It refuses while there is other damage.
func Mend(e env.Env, dev blk.Device, o CheckOptions) (*Report, error) {
	r, err := Check(e, dev, o)
	if err != nil {
		return nil, err
	}
	if r.Fatal > 0 || r.NonFatal != len(r.Leaked.Data)+len(r.Leaked.Metadata) {
		return r, r.Err()
	}
	m, err := Open(e, dev, Options{CacheBytes: o.CacheBytes})
	if err != nil {
		return r, err
	}
	if err := m.change(func() error { return m.mend(r) }); err != nil {
		return r, err
	}
	return r, m.Close()
}

func (m *Metadata) mend(r *Report) error {
	m.super.Flags &^= flagNeedsCheck
	for _, b := range r.Leaked.Data {
		if err := m.data.Dec(b, b+1); err != nil {
			return err
		}
	}
	for _, b := range r.Leaked.Metadata {
		if err := m.tm.Dec(b); err != nil {
			return err
		}
	}
	return nil
}
