package thintools

import (
	"fmt"
	"io"

	"udm/blk"
	"udm/env"
	"udm/targets/thin/thinmeta"
)

// DeltaOptions control Diff and Delta.
type DeltaOptions struct {
	Left, Right  uint32 // device ids
	Verbose      bool   // show data blocks
	MetadataSnap Snap
	CacheBytes   int                      // 0: 64 MiB
	Progress     func(done, total uint64) // mapped blocks; may be nil
}

// Difference is how a range of blocks of two devices compares.
type Difference int

const (
	LeftOnly  Difference = iota // mapped in the left device only
	RightOnly                   // mapped in the right device only
	Different                   // mapped to different data blocks
	Same                        // mapped to the same data blocks
)

func (d Difference) String() string {
	return [...]string{"left_only", "right_only", "different", "same"}[d]
}

// DiffRange is a range of blocks that compare alike. Left and Right are its first
// data blocks on each side, where it is mapped.
type DiffRange struct {
	Difference
	Begin, Len  uint64
	Left, Right uint64
}

// Diff compares two devices and calls fn for each range, in order. A range ends where
// a run of either side ends, so neighbouring ranges may compare alike.
func Diff(e env.Env, dev blk.Device, o DeltaOptions, fn func(DiffRange) error) (*thinmeta.Super, error) {
	s := newSource(e, dev, DumpOptions{MetadataSnap: o.MetadataSnap, CacheBytes: o.CacheBytes, Progress: o.Progress})
	if err := s.open(); err != nil {
		return nil, err
	}
	roots, err := s.roots()
	if err != nil {
		return nil, err
	}
	var sides [2][]Run
	for i, id := range []uint32{o.Left, o.Right} {
		root, ok := roots[id]
		if !ok {
			return nil, fmt.Errorf("no device %d", id)
		}
		j := runner{emit: func(r Run) error { sides[i] = append(sides[i], r); return nil }}
		err := s.mappings(id, root, func(k uint64, v thinmeta.BlockTime) error { v.Time = 0; return j.add(k, v) })
		if err != nil {
			return nil, err
		}
		_ = j.flush()
	}
	return &s.super, diffRuns(sides[0], sides[1], fn)
}

func diffRuns(l, r []Run, fn func(DiffRange) error) error {
	for len(l) > 0 || len(r) > 0 {
		d := firstDiff(l, r)
		if err := fn(d); err != nil {
			return err
		}
		if d.Difference != RightOnly {
			l = consume(l, d.Len)
		}
		if d.Difference != LeftOnly {
			r = consume(r, d.Len)
		}
	}
	return nil
}

// firstDiff compares the starts of two lists of runs, one of which may be empty.
func firstDiff(l, r []Run) DiffRange {
	switch {
	case len(r) == 0 || len(l) > 0 && l[0].Thin < r[0].Thin:
		n := l[0].Len
		if len(r) > 0 {
			n = min(n, r[0].Thin-l[0].Thin)
		}
		return DiffRange{LeftOnly, l[0].Thin, n, l[0].Data, 0}
	case len(l) == 0 || r[0].Thin < l[0].Thin:
		n := r[0].Len
		if len(l) > 0 {
			n = min(n, l[0].Thin-r[0].Thin)
		}
		return DiffRange{RightOnly, r[0].Thin, n, 0, r[0].Data}
	}
	d := DiffRange{Different, l[0].Thin, min(l[0].Len, r[0].Len), l[0].Data, r[0].Data}
	if d.Left == d.Right {
		d.Difference = Same
	}
	return d
}

func consume(rs []Run, n uint64) []Run {
	if r := &rs[0]; n < r.Len {
		r.Thin, r.Data, r.Len = r.Thin+n, r.Data+n, r.Len-n
		return rs
	}
	return rs[1:]
}

// Delta writes the difference of two devices as XML, as thin_delta does.
func Delta(e env.Env, dev blk.Device, w io.Writer, o DeltaOptions) error {
	d := &deltaWriter{text: newText(w)}
	add := d.add
	if o.Verbose {
		add = d.addVerbose
	}
	var ranges []DiffRange
	super, err := Diff(e, dev, o, func(r DiffRange) error { ranges = append(ranges, r); return nil })
	if err != nil {
		return err
	}
	d.str(`<superblock uuid=""`).attr("time", uint64(super.Time)).attr("transaction", super.TransactionID)
	d.attr("data_block_size", uint64(super.DataBlockSize)).attr("nr_data_blocks", super.Data.Blocks)
	if super.HeldRoot != 0 {
		d.attr("metadata_snap", super.HeldRoot)
	}
	d.str(">\n  <diff").attr("left", uint64(o.Left)).attr("right", uint64(o.Right)).str(">\n")
	for _, r := range ranges {
		add(r)
	}
	if o.Verbose {
		d.close()
	} else {
		d.flush()
	}
	d.str("  </diff>\n</superblock>\n")
	return d.w.Flush()
}

// deltaWriter merges neighbouring ranges that compare alike.
type deltaWriter struct {
	text
	cur  DiffRange // being merged; when verbose, that of the open tag
	open bool
}

func (d *deltaWriter) add(r DiffRange) {
	if d.open && d.cur.Difference == r.Difference && d.cur.Begin+d.cur.Len == r.Begin {
		d.cur.Len += r.Len
		return
	}
	d.flush()
	d.cur, d.open = r, true
}

func (d *deltaWriter) flush() {
	if d.open {
		d.str("    <").str(d.cur.String()).attr("begin", d.cur.Begin).attr("length", d.cur.Len).str("/>\n")
	}
	d.open = false
}

func (d *deltaWriter) addVerbose(r DiffRange) {
	if !d.open || d.cur.Difference != r.Difference {
		d.close()
		d.str("    <").str(r.String()).str(">\n")
		d.cur, d.open = r, true
	}
	d.str("      <range").attr("begin", r.Begin)
	switch r.Difference {
	case Different:
		d.attr("left_data_begin", r.Left).attr("right_data_begin", r.Right)
	case RightOnly:
		d.attr("data_begin", r.Right)
	default:
		d.attr("data_begin", r.Left)
	}
	d.attr("length", r.Len).str("/>\n")
}

func (d *deltaWriter) close() {
	if d.open {
		d.str("    </").str(d.cur.String()).str(">\n")
	}
	d.open = false
}
