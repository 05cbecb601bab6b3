package virtq

import (
	"encoding/binary"
	"testing"
	"unsafe"
)

// A driver that writes any bytes to a small memory, which holds the rings and the
// buffers, never makes the device panic, look outside, or work without end.
func FuzzQueue(f *testing.F) {
	const size = 8
	good := make([]byte, 512)
	descriptor{0x1100, 16, flagNext, 1}.put(good, 0)
	descriptor{0x1110, 1, flagWrite, 0}.put(good, 1)
	descriptor{0x1100, 32, flagIndirect, 0}.put(good, 2)
	binary.LittleEndian.PutUint16(good[DescLen(size)+2:], 2)
	binary.LittleEndian.PutUint16(good[DescLen(size)+6:], 2)
	descriptor{0x1120, 8, flagNext, 1}.put(good[256:], 0)
	descriptor{0x1130, 8, flagWrite, 1}.put(good[256:], 1)
	f.Add(good, []byte{0, 0, 1, 1, 2, 3, 4}, uint16(0), true)
	f.Add(good, []byte{0, 1, 2, 0, 1, 2, 5, 130, 255, 0}, uint16(65535), false)
	f.Fuzz(func(t *testing.T, content, ops []byte, next uint16, event bool) {
		mem := make([]byte, 8192)
		copy(mem, content)
		table, err := NewTable(Region{Guest: 0x1000, User: 0x9000, Mem: mem[:4096]}, Region{Guest: 0x2000, User: 0x1000, Mem: mem[4096:], Fixed: true})
		if err != nil {
			t.Fatal(err)
		}
		avail, used := DescLen(size), DescLen(size)+24
		q, err := NewQueue(Config{
			Size: size, Features: Features{EventIdx: event, Indirect: true}, Mem: table, Next: uint32(next),
			Rings: Rings{mem, mem[avail:], mem[used:]},
		})
		if err != nil {
			t.Fatal(err)
		}
		exercise(t, q, mem, ops, size)
	})
}

// FuzzPacked is FuzzQueue for a packed ring.
func FuzzPacked(f *testing.F) {
	const size = 5
	good := make([]byte, 512)
	available := func(i int, addr uint64, n uint32, flags, id uint16) {
		descriptor{addr, n, id, flags | flagAvail}.put(good, i)
	}
	available(0, 0x1100, 16, flagNext, 0)
	available(1, 0x1110, 1, flagWrite, 3)
	available(2, 0x1100, 32, flagIndirect, 1)
	descriptor{0x1120, 8, 0, 0}.put(good[256:], 0)
	descriptor{0x1130, 8, 0, flagWrite}.put(good[256:], 1)
	f.Add(good, []byte{0, 0, 1, 64, 100, 64, 2, 3, 4}, uint32(0), true)
	f.Add(good, []byte{0, 1, 2, 0, 64, 1, 2, 5, 160, 255, 0}, uint32(0x80008000), false)
	f.Fuzz(func(t *testing.T, content, ops []byte, next uint32, event bool) {
		mem := make([]byte, 8192)
		copy(mem, content)
		table, err := NewTable(Region{Guest: 0x1000, User: 0x9000, Mem: mem[:4096]}, Region{Guest: 0x2000, User: 0x1000, Mem: mem[4096:], Fixed: true})
		if err != nil {
			t.Fatal(err)
		}
		notes := mem[2048:][:InflightLen(size)] // which the guest writes to as well
		q, err := NewQueue(Config{
			Size: size, Features: Features{EventIdx: event, Indirect: true, Packed: true}, Mem: table, Next: next,
			Rings: Rings{mem, mem[96:], mem[100:]}, Inflight: notes,
		})
		if err == nil {
			exercise(t, q, mem, ops, size)
		}
	})
}

// exercise has a device and a driver do what ops say.
func exercise(t *testing.T, q Queue, mem, ops []byte, size int) {
	var c Chain
	var heads []uint16
	for i := 0; i < len(ops) && i < 1000; i++ {
		switch op := ops[i]; {
		case op < 64:
			ok, err := q.Next(&c)
			if !ok || err != nil {
				continue
			}
			heads = append(heads, c.Head)
			within(t, mem, &c)
		case op < 96 && len(heads) > 0:
			q.Put(heads[0], uint32(op))
			heads = heads[1:]
		case op < 128:
			q.Publish()
		case op < 144:
			q.Park()
			q.Unpark()
		case op < 152:
			if s, ok := q.(*split); ok && s.Take(&c, uint16(op)) == nil {
				heads = append(heads, c.Head)
			}
		case i+2 < len(ops):
			mem[(int(op)<<8|int(ops[i+1]))&0x1ff] = ops[i+2]
			i += 2
		}
		if len(heads) > size || q.InFlight() != len(heads) {
			t.Fatalf("%d chains are in flight, %d were taken", q.InFlight(), len(heads))
		}
	}
}

func within(t *testing.T, mem []byte, c *Chain) {
	n := 0
	for _, list := range [][][]byte{c.Out, c.In} {
		for _, p := range list {
			n += len(p)
			off := uintptr(unsafe.Pointer(&p[0])) - uintptr(unsafe.Pointer(&mem[0]))
			if len(p) == 0 || off+uintptr(len(p)) > uintptr(len(mem)) {
				t.Fatal("a buffer outside memory")
			}
		}
	}
	if len(c.Out)+len(c.In) > MaxChain || c.Err == nil && uint64(n) != c.Bytes {
		t.Fatalf("%d buffers, %d bytes, %d described: %v", len(c.Out)+len(c.In), n, c.Bytes, c.Err)
	}
}
