package ublk

import (
	"bytes"
	"encoding/hex"
	"testing"

	"udm/blk"
)

// TestLayouts compares with the layout in the kernel's header.
func TestLayouts(t *testing.T) {
	i := Info{ID: 0x01020304, Queues: 2, Depth: 64, State: Quiesced, MaxBytes: 1 << 19, Flags: 0x58, Mark: 0x1122334455667788}
	want, _ := hex.DecodeString("0200400002000000" + "0000080004030201" + "0000000000000000" + "5800000000000000" + "8877665544332211" +
		"0000000000000000" + "0000000000000000" + "0000000000000000")
	if got := i.encode(); ne.Uint16([]byte{1, 0}) == 1 && !bytes.Equal(got, want) {
		t.Errorf("info is\n%x, want\n%x", got, want)
	}
	if got := decodeInfo(i.encode()); got != i {
		t.Errorf("decoded %+v, want %+v", got, i)
	}
}

func TestParams(t *testing.T) {
	l := blk.Limits{Size: 1 << 40, LogicalBlock: 512, PhysicalBlock: 4096, MinIO: 4096, OptIO: 3 << 20, MaxSectors: 0,
		MaxDiscard: blk.NoLimit, DiscardGranularity: 65536, VolatileCache: true, ReadOnly: true}
	p := params(&l, 512<<10)
	for _, c := range []struct {
		what      string
		got, want uint64
	}{
		{"length", uint64(ne.Uint32(p)), paramsSize},
		{"types", uint64(ne.Uint32(p[4:])), paramBasic | paramDiscard},
		{"attributes", uint64(ne.Uint32(p[8:])), attrReadOnly | attrVolatileCache | attrFUA},
		{"logical", uint64(p[12]), 9}, {"physical", uint64(p[13]), 12}, {"optimal", uint64(p[14]), 21}, {"least", uint64(p[15]), 12},
		{"sectors", uint64(ne.Uint32(p[16:])), 1024},
		{"size", ne.Uint64(p[24:]), 1 << 40},
		{"granularity", uint64(ne.Uint32(p[44:])), 65536},
		{"discard", uint64(ne.Uint32(p[48:])), 1<<23 - 128},
		{"write zeroes", uint64(ne.Uint32(p[52:])), 0},
		{"segments", uint64(ne.Uint16(p[56:])), 1},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d, want %d", c.what, c.got, c.want)
		}
	}
	for _, c := range []struct {
		most, maxDiscard uint32
		l                blk.Limits
	}{
		{8, 0, blk.Limits{MaxSectors: 1, LogicalBlock: 512}},
		{24, 0, blk.Limits{MaxSectors: 24, LogicalBlock: 512}},
		{1024, 8, blk.Limits{MaxDiscard: 8, DiscardGranularity: 4096, LogicalBlock: 512}},
		{1024, 16, blk.Limits{MaxDiscard: 23, DiscardGranularity: 4096, LogicalBlock: 512}},
	} {
		p := params(&c.l, 512<<10)
		if most, discard := ne.Uint32(p[16:]), ne.Uint32(p[48:]); most != c.most || discard != c.maxDiscard {
			t.Errorf("%+v: %d sectors, discards of %d, want %d and %d", c.l, most, discard, c.most, c.maxDiscard)
		}
	}
}
