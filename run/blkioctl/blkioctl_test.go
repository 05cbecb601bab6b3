package blkioctl

import (
	"encoding/hex"
	"testing"
)

func TestAnswers(t *testing.T) {
	d := Device{Size: 1<<33 + 512, ReadOnly: true, LogicalBlock: 4096, PhysicalBlock: 8192, MinIO: 16384, OptIO: 65536, Rotational: true, ReadAhead: 256}
	for request, want := range map[uint32]string{
		0x80081272: "0002000002000000", 0x1260: "0100000100000000", 0x1268: "00100000", 0x127b: "00200000", 0x1278: "00400000",
		0x1279: "00000100", 0x125e: "01000000", 0x127e: "0100", 0x1263: "0001000000000000", 0x1267: "000a", 0x80081270: "00100000",
	} {
		got, ok := Answer(request, d)
		if !ok || hex.EncodeToString(got) != want {
			t.Errorf("%#x: %x, %v, want %s", request, got, ok, want)
		}
	}
	for _, request := range []uint32{Discard, ZeroOut, Reread, Flush, 0x1234} {
		if _, ok := Answer(request, d); ok {
			t.Errorf("%#x is answered", request)
		}
	}
}

func TestRange(t *testing.T) {
	d := Device{Size: 1 << 20, LogicalBlock: 4096}
	for _, c := range []struct {
		offset, length uint64
		ok             bool
	}{
		{0, 1 << 20, true}, {4096, 4096, true}, {1<<20 - 4096, 4096, true},
		{0, 0, false}, {512, 4096, false}, {0, 512, false}, {1 << 20, 4096, false}, {4096, 1 << 20, false}, {1 << 63, 1 << 63, false},
	} {
		if _, _, ok := d.Range(append(long(c.offset), long(c.length)...)); ok != c.ok {
			t.Errorf("%d+%d: %v", c.offset, c.length, ok)
		}
	}
}
