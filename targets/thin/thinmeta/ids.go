package thinmeta

import "udm/pdata"

// IDs returns the ids of all devices in ascending order, except detached ones.
func (m *Metadata) IDs() (ids []uint32, err error) {
	if err := m.sb.Usable(); err != nil {
		return nil, err
	}
	err = m.tops.Walk(m.super.MappingRoot, func(id uint64, _ uint64) error {
		if id <= MaxID {
			ids = append(ids, uint32(id))
		}
		return nil
	})
	return ids, pdata.In("device tree", err)
}

// Count counts up to most mapped blocks of a device from begin on: those it owns
// alone and those it shares. If there are more, the count continues at next.
func (m *Metadata) Count(id uint32, begin uint64, most int) (own, shared, next uint64, more bool, err error) {
	t, err := m.OpenThin(id)
	if err != nil {
		return 0, 0, 0, false, err
	}
	defer t.Close()
	root, err := m.bottomRoot(id)
	if err != nil {
		return 0, 0, 0, false, err
	}
	var blocks []uint64
	err = t.in(m.bottoms.Scan(root, begin, func(k uint64, v uint64) bool {
		if more = len(blocks) == most; more {
			next = k
			return false
		}
		blocks = append(blocks, t.mapping(v).Block)
		return true
	}))
	for _, b := range blocks {
		is, serr := m.DataShared(b)
		if serr != nil {
			return own, shared, next, false, serr
		}
		if is {
			shared++
		} else {
			own++
		}
	}
	return own, shared, next, more, err
}
