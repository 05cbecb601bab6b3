package veritytools_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/env"
	"udm/targets/verity/hashtree"
	"udm/targets/verity/veritytools"
)

func sample() *veritytools.Header {
	return &veritytools.Header{UUID: veritytools.UUID{1, 2, 3}, Shape: hashtree.Shape{Version: 1, DataBlock: 4096, HashBlock: 1024, DataBlocks: 77, Algorithm: "sha256", Salt: []byte{5, 6}}}
}

// TestSuperblock checks that a superblock is read as it was written, and that writing it
// changes nothing around it.
func TestSuperblock(t *testing.T) {
	e := env.NewStepped()
	for _, block := range []uint32{512, 4096} {
		d := memdev.New(64, memdev.Tune(func(l *blk.Limits) { l.LogicalBlock = block }))
		around := make([]byte, 64*512)
		for i := range around {
			around[i] = 7
		}
		if err := blk.WriteSectors(e, d, around, 0, 0); err != nil {
			t.Fatal(err)
		}
		h := sample()
		if err := errors.Join(h.Check(1536, true), h.WriteSuperblock(e, d, 1536)); err != nil {
			t.Fatal(err)
		}
		got, err := veritytools.Read(e, d, 1536)
		if err != nil || !reflect.DeepEqual(got, h) {
			t.Errorf("read %+v, %v, want %+v", got, err, h)
		}
		p := make([]byte, 4096)
		if err := blk.ReadSectors(e, d, p, 0); err != nil || p[1535] != 7 || p[2048] != 7 {
			t.Errorf("data around the superblock changed, %v", err)
		}
		if _, err := veritytools.Read(e, d, 0); !errors.Is(err, veritytools.ErrNone) {
			t.Error(err)
		}
		for _, offset := range []uint64{100, 64 * 512, 1 << 63} {
			if _, err := veritytools.Read(e, d, offset); err == nil {
				t.Errorf("read at %d", offset)
			}
		}
	}
}

// FuzzSuperblock parses arbitrary superblocks. Valid ones survive being written and read
// again.
func FuzzSuperblock(f *testing.F) {
	e := env.NewStepped()
	d := memdev.New(1)
	if err := sample().WriteSuperblock(e, d, 0); err != nil {
		f.Fatal(err)
	}
	p := make([]byte, 512)
	if err := blk.ReadSectors(e, d, p, 0); err != nil {
		f.Fatal(err)
	}
	f.Add(p)
	f.Fuzz(func(t *testing.T, p []byte) {
		d := memdev.New(1)
		if err := blk.WriteSectors(e, d, append(p, make([]byte, 512)...)[:512], 0, 0); err != nil {
			t.Fatal(err)
		}
		h, err := veritytools.Read(e, d, 0)
		if err != nil {
			return
		}
		if h.Check(0, true) != nil {
			return
		}
		if _, err := h.HashBytes(); err != nil {
			return
		}
		again := memdev.New(1)
		if err := h.WriteSuperblock(e, again, 0); err != nil {
			t.Fatal(err)
		}
		if got, err := veritytools.Read(e, again, 0); err != nil || got.Check(0, true) != nil || !reflect.DeepEqual(got, h) {
			t.Errorf("%+v became %+v, %v", h, got, err)
		}
	})
}

func TestUUID(t *testing.T) {
	const text = "01234567-89ab-cdef-0123-456789abcdef"
	u, err := veritytools.ParseUUID(strings.ToUpper(text))
	if err != nil || u.String() != text {
		t.Errorf("%v, %v", u, err)
	}
	for _, wrong := range []string{"", "x", text[1:], text + "0", strings.ReplaceAll(text, "-", ""), "g" + text[1:]} {
		if _, err := veritytools.ParseUUID(wrong); err == nil {
			t.Errorf("%q is a UUID", wrong)
		}
	}
	if u, err := veritytools.NewUUID(); err != nil || u.String()[14] != '4' {
		t.Errorf("%v, %v", u, err)
	}
}
