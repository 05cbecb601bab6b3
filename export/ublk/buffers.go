package ublk

const (
	// ownBytes is the size of the buffer that each tag has where the server copies data.
	ownBytes = 16 << 10

	// sharedBuffers is the number of buffers for larger requests, which the tags of a queue share.
	sharedBuffers = 8
)

// buffers is the memory for the data of a queue's requests. Where the kernel copies data, it
// needs a buffer for the largest request in each tag before the request arrives. Where the
// server copies, only short requests have a buffer at hand, and longer ones share a few.
type buffers struct {
	own    []byte   // one buffer of size bytes for each tag
	size   int      // bytes
	shared [][]byte // free
}

// newBuffers divides memory of buffersLen(depth, maxBytes, copies) bytes.
func newBuffers(memory []byte, depth, maxBytes int, copies bool) (b buffers) {
	b.size = ownLen(maxBytes, copies)
	b.own, memory = memory[:depth*b.size:depth*b.size], memory[depth*b.size:]
	for ; len(memory) > 0; memory = memory[maxBytes:] {
		b.shared = append(b.shared, memory[:maxBytes:maxBytes])
	}
	return b
}

// buffersLen returns the number of bytes that a queue needs. copies: the server copies data.
func buffersLen(depth, maxBytes int, copies bool) int {
	n := depth * ownLen(maxBytes, copies)
	if ownLen(maxBytes, copies) < maxBytes {
		n += sharedBuffers * maxBytes
	}
	return n
}

func ownLen(maxBytes int, copies bool) int {
	if copies {
		return min(ownBytes, maxBytes)
	}
	return maxBytes
}

// of returns the buffer of a tag.
func (b *buffers) of(tag uint16) []byte { return b.own[int(tag)*b.size:][:b.size:b.size] }

// take returns a buffer of n bytes for the request in a tag, or nil if none is free.
func (b *buffers) take(tag uint16, n int) []byte {
	if n <= b.size {
		return b.of(tag)[:n]
	}
	last := len(b.shared) - 1
	if last < 0 {
		return nil
	}
	p := b.shared[last]
	b.shared = b.shared[:last]
	return p[:n]
}

// give takes back what take has returned.
func (b *buffers) give(p []byte) {
	if len(p) > b.size {
		b.shared = append(b.shared, p[:cap(p)])
	}
}
