package integrity

import (
	"encoding/binary"
	"math/bits"
)

// The primes of XXH64.
const (
	prime1 uint64 = 11400714785074694791
	prime2 uint64 = 14029467366897019727
	prime3 uint64 = 1609587929392839161
	prime4 uint64 = 9650029242287828579
	prime5 uint64 = 2870177450012600261
)

// xxhash is XXH64 with seed 0 and little-endian output, as in the kernel.
type xxhash struct {
	lanes  [4]uint64
	buffer [32]byte
	n      int // bytes in buffer
	total  uint64
}

func (h *xxhash) Size() int      { return 8 }
func (h *xxhash) BlockSize() int { return 32 }

func (h *xxhash) Reset() {
	p1, p2 := prime1, prime2 // variables, because constant expressions must not overflow
	h.lanes = [4]uint64{p1 + p2, p2, 0, -p1}
	h.n, h.total = 0, 0
}

func (h *xxhash) Write(p []byte) (int, error) {
	size := len(p)
	h.total += uint64(size)
	if h.n > 0 {
		n := copy(h.buffer[h.n:], p)
		h.n += n
		p = p[n:]
		if h.n < len(h.buffer) {
			return size, nil
		}
		h.mix(h.buffer[:])
	}
	whole := len(p) &^ 31
	h.mix(p[:whole])
	h.n = copy(h.buffer[:], p[whole:])
	return size, nil
}

// mix consumes whole stripes of 32 bytes.
func (h *xxhash) mix(p []byte) {
	le := binary.LittleEndian
	for ; len(p) >= 32; p = p[32:] {
		for i := range h.lanes {
			h.lanes[i] = round(h.lanes[i], le.Uint64(p[8*i:]))
		}
	}
}

func round(lane, word uint64) uint64 { return bits.RotateLeft64(lane+word*prime2, 31) * prime1 }

func (h *xxhash) Sum(out []byte) []byte {
	le := binary.LittleEndian
	sum := prime5
	if h.total >= 32 {
		sum = 0
		for i, lane := range h.lanes {
			sum += bits.RotateLeft64(lane, []int{1, 7, 12, 18}[i])
		}
		for _, lane := range h.lanes {
			sum = (sum^round(0, lane))*prime1 + prime4
		}
	}
	sum += h.total
	p := h.buffer[:h.n]
	for ; len(p) >= 8; p = p[8:] {
		sum = bits.RotateLeft64(sum^round(0, le.Uint64(p)), 27)*prime1 + prime4
	}
	if len(p) >= 4 {
		sum = bits.RotateLeft64(sum^uint64(le.Uint32(p))*prime1, 23)*prime2 + prime3
		p = p[4:]
	}
	for _, b := range p {
		sum = bits.RotateLeft64(sum^uint64(b)*prime5, 11) * prime1
	}
	sum = (sum ^ sum>>33) * prime2
	sum = (sum ^ sum>>29) * prime3
	return le.AppendUint64(out, sum^sum>>32)
}
