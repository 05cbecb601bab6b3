package qcow2

import (
	"bytes"
	"compress/flate"
	"io"
)

// kind says where bytes are stored.
type kind uint8

const (
	absent     kind = iota // in the backing file
	zero                   // nowhere: zeroes
	data                   // in the data file
	compressed             // in a compressed cluster
)

// run is consecutive bytes of one kind.
type run struct {
	kind   kind
	length uint64 // bytes from the requested position on; at least one
	host   uint64 // offset of the bytes, or of the compressed cluster
	packed uint64 // maximum length of the compressed cluster in bytes
}

// Entries of the tables.
const (
	offsetMask     = 1<<56 - 1<<9
	flagCopied     = 1 << 63
	flagCompressed = 1 << 62
	flagZero       = 1 << 0 // version 3, without extended entries
	subclusters    = 32
)

// find returns the run that starts at byte off, which is before the end. A cluster
// may extend beyond the end; the run does not.
func (d *image) find(l *layer, off uint64) (run, error) {
	r, err := d.lookUp(l, off)
	r.length = min(r.length, l.size-off)
	return r, err
}

func (d *image) lookUp(l *layer, off uint64) (run, error) {
	if l.header == nil {
		return run{kind: data, length: l.size - off, host: off}, nil
	}
	cluster := l.clusterSize()
	entry := uint64(8)
	if l.extended() {
		entry = 16
	}
	perL2 := cluster / entry * cluster // bytes below an L2 table
	e, err := d.entry(l, l.l1+off/perL2*8)
	if err != nil {
		return run{}, err
	}
	table := e & offsetMask
	if table == 0 {
		return run{kind: absent, length: perL2 - off%perL2}, nil
	}
	if table%cluster != 0 {
		return run{}, l.broken("an L2 table is at %#x", table)
	}
	at := table + off%perL2/cluster*entry
	if e, err = d.entry(l, at); err != nil {
		return run{}, err
	}
	if e&flagCompressed != 0 {
		return l.compressed(e, off), nil
	}
	if l.extended() {
		bits, err := d.entry(l, at+8)
		if err != nil {
			return run{}, err
		}
		return l.subcluster(e, bits, off)
	}
	return l.cluster(e, off)
}

func (l *layer) extended() bool { return l.features&featExtendedL2 != 0 }

// compressed returns the run of a compressed cluster: the lower bits of the entry are
// its place, the upper ones count sectors of 512 bytes after the first.
func (l *layer) compressed(e, off uint64) run {
	x := 62 - (l.bits - 8)
	host := e & (1<<x - 1)
	sectors := e&(flagCompressed-1)>>x + 1
	return run{kind: compressed, length: l.clusterSize() - off%l.clusterSize(), host: host, packed: sectors*512 - host%512}
}

// cluster returns the run of a cluster with an ordinary entry.
func (l *layer) cluster(e, off uint64) (run, error) {
	r := run{length: l.clusterSize() - off%l.clusterSize()}
	host := e & offsetMask
	switch {
	case host%l.clusterSize() != 0:
		return r, l.broken("a cluster is at %#x", host)
	case e&flagZero != 0 && l.version > 2:
		r.kind = zero
	case l.mapped(e):
		r.kind, r.host = data, host+off%l.clusterSize()
	}
	return r, nil
}

// mapped reports whether an entry has a place. In a data file the place may be 0.
func (l *layer) mapped(e uint64) bool {
	return e&offsetMask != 0 || l.data != l.f && e&flagCopied != 0
}

// subcluster returns the run of a part of a cluster with an extended entry. For each
// part, bits say whether it is allocated, and above that whether it is zero.
func (l *layer) subcluster(e, bits, off uint64) (run, error) {
	size := l.clusterSize() / subclusters
	i := off % l.clusterSize() / size
	r := run{length: size - off%size}
	host := e & offsetMask
	there, zeroes := bits>>i&1 != 0, bits>>(subclusters+i)&1 != 0
	switch {
	case host%l.clusterSize() != 0:
		return r, l.broken("a cluster is at %#x", host)
	case there && (zeroes || !l.mapped(e)):
		return r, l.broken("a part of a cluster is both allocated and zero")
	case zeroes:
		r.kind = zero
	case there:
		r.kind, r.host = data, host+off%l.clusterSize()
	}
	return r, nil
}

// pageSize is the unit in which tables are read.
const pageSize = 4096

// entry reads 8 bytes of a table.
func (d *image) entry(l *layer, at uint64) (uint64, error) {
	k := key{l, at / pageSize}
	p := d.cache.get(k)
	if p == nil {
		p = make([]byte, pageSize)
		if err := readFull(l.f, p, int64(at/pageSize*pageSize)); err != nil {
			return 0, err
		}
		d.cache.put(k, p)
	}
	return be.Uint64(p[at%pageSize:]), nil
}

// cluster returns a compressed cluster, decompressed. The caller must not change it.
func (d *image) cluster(l *layer, r run) ([]byte, error) {
	k := key{l, r.host | flagCompressed} // apart from the pages
	if p := d.cache.get(k); p != nil {
		return p, nil
	}
	src := make([]byte, r.packed)
	if err := readFull(l.f, src, int64(r.host)); err != nil {
		return nil, err
	}
	p := make([]byte, l.clusterSize())
	var err error
	if l.zstd {
		err = d.zstd(p, src)
	} else {
		_, err = io.ReadFull(flate.NewReader(bytes.NewReader(src)), p)
	}
	if err != nil {
		return nil, l.broken("the compressed cluster at %#x: %v", r.host, err)
	}
	d.cache.put(k, p)
	return p, nil
}
