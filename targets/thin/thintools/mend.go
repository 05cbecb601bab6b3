package thintools

import (
	"udm/blk"
	"udm/env"
	"udm/targets/thin/thinmeta"
)

// Mend repairs what can be repaired without loss, in one transaction: it frees the
// data and metadata blocks that Check found leaked, and clears needs_check. It
// refuses if there is other damage.
func Mend(e env.Env, dev blk.Device, o CheckOptions) (*Report, error) {
	r, err := Check(e, dev, o)
	if err != nil {
		return nil, err
	}
	if r.Fatal > 0 || r.NonFatal != len(r.Leaked.Data)+len(r.Leaked.Metadata) {
		return r, r.Err()
	}
	m, err := thinmeta.Open(e, dev, thinmeta.Options{CacheBytes: o.CacheBytes})
	if err != nil {
		return r, err
	}
	if err := m.Mend(r.Leaked.Data, r.Leaked.Metadata); err != nil {
		return r, err
	}
	return r, m.Close()
}
