package thintools

import (
	"cmp"
	"maps"
	"slices"

	"udm/blk"
	"udm/env"
	"udm/targets/thin/thinmeta"
)

// Region is a range of data blocks: [Begin, End).
type Region struct{ Begin, End uint64 }

// Owner says which blocks of a device a run of data blocks is mapped to.
type Owner struct {
	Data, Thin, Len uint64
	ID              uint32
}

// Owners returns the devices that map the data blocks of regions, in order of data
// blocks, like thin_rmap.
func Owners(e env.Env, dev blk.Device, regions []Region) ([]Owner, error) {
	s := newSource(e, dev, DumpOptions{})
	if err := s.open(); err != nil {
		return nil, err
	}
	roots, err := s.roots()
	if err != nil {
		return nil, err
	}
	regions = join(regions)
	var all []Owner
	for _, id := range slices.Sorted(maps.Keys(roots)) {
		j := runner{emit: func(r Run) error {
			all = append(all, owners(id, r, regions)...)
			return nil
		}}
		err := s.mappings(id, roots[id], func(k uint64, v thinmeta.BlockTime) error { v.Time = 0; return j.add(k, v) })
		if err != nil {
			return nil, err
		}
		_ = j.flush()
	}
	slices.SortStableFunc(all, func(a, b Owner) int { return cmp.Or(cmp.Compare(a.Data, b.Data), cmp.Compare(a.ID, b.ID)) })
	return all, nil
}

// owners returns the part of a run that lies in regions.
func owners(id uint32, r Run, regions []Region) (list []Owner) {
	for _, g := range regions {
		begin, end := max(g.Begin, r.Data), min(g.End, r.Data+r.Len)
		if begin < end {
			list = append(list, Owner{begin, r.Thin + begin - r.Data, end - begin, id})
		}
	}
	return list
}

// join sorts regions and merges those that touch.
func join(regions []Region) (joined []Region) {
	for _, g := range slices.SortedFunc(slices.Values(regions), func(a, b Region) int { return cmp.Compare(a.Begin, b.Begin) }) {
		if n := len(joined); n > 0 && g.Begin <= joined[n-1].End {
			joined[n-1].End = max(joined[n-1].End, g.End)
			continue
		}
		joined = append(joined, g)
	}
	return joined
}
