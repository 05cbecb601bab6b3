package pdata

import "fmt"

const (
	nodeHead     = 32
	flagInternal = 1
	flagLeaf     = 2

	// maxDepth bounds every descent. With 84 children in a node no tree comes
	// near it.
	maxDepth = 24

	spareForMove = 8 // a sibling with this many free entries accepts some (SPACE_THRESHOLD)
)

// MaxEntries is the capacity of a node with values of size bytes.
func MaxEntries(size int) int { return (BlockSize - nodeHead) / (8 + size) / 3 * 3 }

// node is a B+tree node to read.
type node struct{ Block }

func (n node) flags() uint32 { return le.Uint32(n.data[4:]) }
func (n node) leaf() bool    { return n.flags() == flagLeaf }
func (n node) count() int    { return int(le.Uint32(n.data[16:])) }
func (n node) max() int      { return int(le.Uint32(n.data[20:])) }
func (n node) size() int     { return int(le.Uint32(n.data[24:])) }
func (n node) full() bool    { return n.count() == n.max() }

func (n node) key(i int) uint64   { return le.Uint64(n.data[nodeHead+8*i:]) }
func (n node) child(i int) uint64 { return le.Uint64(n.data[nodeHead+8*(n.max()+i):]) }

// keys are the keys [i, j).
func (n node) keys(i, j int) []byte { return n.data[nodeHead+8*i : nodeHead+8*j] }

// values are the values [i, j).
func (n node) values(i, j int) []byte {
	base, size := nodeHead+8*n.max(), n.size()
	return n.data[base+size*i : base+size*j]
}

// lower is the index of the last entry whose key is at most key; -1 if there is
// none.
func (n node) lower(key uint64) int {
	lo, hi := -1, n.count()
	for hi-lo > 1 {
		mid := int(uint(lo+hi) >> 1)
		if n.key(mid) <= key {
			lo = mid
		} else {
			hi = mid
		}
	}
	return lo
}

// find is the index of key; -1 if it is absent.
func (n node) find(key uint64) int {
	if i := n.lower(key); i >= 0 && n.key(i) == key {
		return i
	}
	return -1
}

// wnode is a node to change.
type wnode struct{ node }

func (n wnode) setCount(c int)            { le.PutUint32(n.data[16:], uint32(c)) }
func (n wnode) setKey(i int, key uint64)  { le.PutUint64(n.data[nodeHead+8*i:], key) }
func (n wnode) setChild(i int, nr uint64) { le.PutUint64(n.values(i, i+1), nr) }
func (n wnode) setValue(i int, v []byte)  { copy(n.values(i, i+1), v) }

// init makes an empty node with values of size bytes.
func (n wnode) init(flags uint32, size int) {
	le.PutUint32(n.data[4:], flags)
	n.setCount(0)
	le.PutUint32(n.data[20:], uint32(MaxEntries(size)))
	le.PutUint32(n.data[24:], uint32(size))
}

// insert inserts an entry at i. The node must not be full.
func (n wnode) insert(i int, key uint64, value []byte) {
	c := n.count()
	copy(n.keys(i+1, c+1), n.keys(i, c))
	copy(n.values(i+1, c+1), n.values(i, c))
	n.setKey(i, key)
	n.setValue(i, value)
	n.setCount(c + 1)
}

// remove removes the entries [i, j).
func (n wnode) remove(i, j int) {
	c := n.count()
	copy(n.keys(i, c-(j-i)), n.keys(j, c))
	copy(n.values(i, c-(j-i)), n.values(j, c))
	n.setCount(c - (j - i))
}

// spread redistributes the entries of neighbouring nodes: nodes[i] gets
// counts[i], in order.
func spread(nodes []wnode, counts ...int) {
	same := true
	for i, n := range nodes {
		same = same && n.count() == counts[i]
	}
	if same {
		return
	}
	var keys, values [3 * BlockSize]byte
	k, v := keys[:0], values[:0]
	for _, n := range nodes {
		k = append(k, n.keys(0, n.count())...)
		v = append(v, n.values(0, n.count())...)
	}
	for i, n := range nodes {
		n.setCount(counts[i])
		k = k[copy(n.keys(0, counts[i]), k):]
		v = v[copy(n.values(0, counts[i]), v):]
	}
}

// checkNode describes what is wrong inside a node whose checksum is right. A node
// that it accepts can be read and changed without leaving the block.
func checkNode(p []byte) string {
	flags, count := le.Uint32(p[4:]), le.Uint32(p[16:])
	most, size := le.Uint32(p[20:]), le.Uint32(p[24:])
	switch {
	case flags != flagInternal && flags != flagLeaf:
		return fmt.Sprintf("flags of a btree node are %#x", flags)
	case flags == flagInternal && size != 8:
		return fmt.Sprintf("value size of an internal node is %d", size)
	case size > (BlockSize-nodeHead)/3-8 || most != uint32(MaxEntries(int(size))):
		return fmt.Sprintf("max_entries of a node with values of %d bytes is %d", size, most)
	case count > most:
		return fmt.Sprintf("nr_entries %d is more than max_entries %d", count, most)
	case flags == flagInternal && count == 0:
		return "internal node without entries"
	}
	for i := 1; i < int(count); i++ {
		if le.Uint64(p[nodeHead+8*i:]) <= le.Uint64(p[nodeHead+8*(i-1):]) {
			return fmt.Sprintf("keys %d and %d are out of order", i-1, i)
		}
	}
	return ""
}
