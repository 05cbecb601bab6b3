package pdata

import "slices"

// MapView is a space map as it is on disk.
type MapView struct {
	c       *Checker
	name    string
	Root    MapRoot
	bitmaps []bitmapAt // the readable ones
	many    map[uint64]uint32
}

type bitmapAt struct{ index, nr uint64 }

// maxSpace is the largest size in blocks that a space map may state.
const maxSpace = 1 << 48

// Map checks a space map and counts the references to its own blocks.
func (c *Checker) Map(name string, root MapRoot, metadata bool) *MapView {
	v := &MapView{c: c, name: name, Root: root, many: map[uint64]uint32{}}
	n := (root.Blocks + perBitmap - 1) / perBitmap
	if n > perIndex && metadata || root.Blocks > maxSpace {
		c.Damage(&Corrupt{Block: root.BitmapRoot, Path: []uint64{root.BitmapRoot}, Tree: name, Reason: "space map is too large"})
		return v
	}
	if metadata {
		v.readIndex(n)
	} else {
		v.readIndexTree(n)
	}
	v.bitmaps = slices.DeleteFunc(v.bitmaps, func(b bitmapAt) bool {
		c.Refs.Add(b.nr, 1)
		_, err := c.bm.Read(b.nr, kindBitmap)
		if err != nil {
			v.damage(b.nr, reasonOf(err))
		}
		return err != nil
	})
	c.Tree(name+"/reference counts", root.RefRoot, 4, func(l Leaf) {
		for i := range l.Len() {
			v.many[l.Key(i)] = le.Uint32(l.Value(i))
		}
	})
	return v
}

func (v *MapView) damage(nr uint64, reason string) {
	path := []uint64{v.Root.BitmapRoot}
	if nr != v.Root.BitmapRoot {
		path = append(path, nr)
	}
	v.c.Damage(&Corrupt{Block: nr, Path: path, Tree: v.name, Reason: reason})
}

func (v *MapView) readIndex(n uint64) {
	v.c.Refs.Add(v.Root.BitmapRoot, 1)
	b, err := v.c.bm.Read(v.Root.BitmapRoot, kindIndex)
	if err != nil {
		v.damage(v.Root.BitmapRoot, reasonOf(err))
		return
	}
	for i := range n {
		v.bitmaps = append(v.bitmaps, bitmapAt{i, indexCodec.Get(b.data[indexHead+16*i:]).block})
	}
}

func (v *MapView) readIndexTree(n uint64) {
	_, whole := v.c.Tree(v.name+"/bitmap index", v.Root.BitmapRoot, indexCodec.Size, func(l Leaf) {
		for i := range l.Len() {
			v.bitmaps = append(v.bitmaps, bitmapAt{l.Key(i), indexCodec.Get(l.Value(i)).block})
		}
	})
	good := uint64(len(v.bitmaps)) == n
	for i, b := range v.bitmaps {
		good = good && b.index == uint64(i)
	}
	if whole && !good {
		v.damage(v.Root.BitmapRoot, "the index does not name the right bitmaps")
	}
	v.bitmaps = slices.DeleteFunc(v.bitmaps, func(b bitmapAt) bool { return b.index >= n })
}

// Compare calls differ for each block whose count on disk differs from want. It
// skips counts in unreadable bitmaps.
func (v *MapView) Compare(want *RefCounts, differ func(bitmap, nr uint64, have, want uint32)) {
	for _, at := range v.bitmaps {
		b, err := v.c.bm.Read(at.nr, kindBitmap)
		if err != nil {
			v.damage(at.nr, reasonOf(err))
			continue
		}
		first := at.index * perBitmap
		for nr := first; nr < min(first+perBitmap, v.Root.Blocks); nr++ {
			have := bitmap(b.data[:]).get(uint32(nr - first))
			if have == manyRefs {
				have = v.many[nr]
			}
			if w := want.Get(nr); have != w {
				differ(at.nr, nr, have, w)
			}
		}
	}
}
