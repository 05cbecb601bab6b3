package luks

import (
	"bytes"
	"encoding/json"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/env"
)

// poor are limits of fuzzed headers.
var poor = Options{Limits: Limits{Memory: 1 << 20, Work: 2 << 20, Iterations: 2000}}

// use does with a container what it allows. It must not hang or take much.
func use(c *Container) {
	for _, s := range c.Header.Slots {
		if k, err := c.Unlock([]byte("pass"), s.ID); err == nil {
			_, _ = c.AddKey(k, []byte("more"), cheap[c.Header.Version])
			_, _, _ = c.Line(k, "/a", diskSectors)
			_, _, _ = c.IntegrityLine(env.Real(), c.store.dev, "/a")
		}
	}
	_ = c.RemoveKey(0, true)
}

// FuzzHeader1 opens a header of version 1.
func FuzzHeader1(f *testing.F) {
	d := memdev.New(diskSectors)
	c, err := Create(env.Real(), d, small(1), []byte("pass"), Options{})
	if err != nil {
		f.Fatal(err)
	}
	all, err := c.store.read(0, c.end())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(c.v1.raw[:])
	f.Fuzz(func(t *testing.T, raw []byte) {
		disk := memdev.New(diskSectors)
		image := bytes.Clone(all)
		copy(image, raw)
		if err := blk.WriteSectors(env.Real(), disk, image, 0, 0); err != nil {
			t.Fatal(err)
		}
		if c, err := Open(env.Real(), disk, poor); err == nil {
			use(c)
		}
	})
}

// FuzzHeader2 opens a header of version 2 with any JSON and a right checksum.
func FuzzHeader2(f *testing.F) {
	d := memdev.New(diskSectors)
	c, err := Create(env.Real(), d, small(2), []byte("pass"), Options{})
	if err != nil {
		f.Fatal(err)
	}
	text, err := json.Marshal(c.v2.doc)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"segments":{"0":{}},"keyslots":[],"digests":{"0":1}}`))
	material, err := c.store.read(2*minSize2, 256<<10)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		all := make([]byte, minSize2)
		head, err := c.v2.marshal(0, make([]byte, 64))
		if err != nil || len(text) > len(all)-binarySize {
			return
		}
		copy(all, head[:binarySize])
		copy(all[binarySize:], text)
		sum, err := checksum(all)
		if err != nil {
			t.Fatal(err)
		}
		copy(all[448:], sum)
		disk := memdev.New(diskSectors)
		st := store{env.Real(), disk}
		if err := st.write(0, all); err != nil {
			t.Fatal(err)
		}
		if err := st.write(2*minSize2, material); err != nil {
			t.Fatal(err)
		}
		if c, err := Open(env.Real(), disk, poor); err == nil {
			use(c)
		}
	})
}

// FuzzCopy takes any copy apart.
func FuzzCopy(f *testing.F) {
	f.Add(make([]byte, minSize2))
	f.Fuzz(func(t *testing.T, all []byte) {
		if len(all) >= binarySize {
			_, _ = parseCopy(all)
		}
	})
}

// FuzzSplit: what is split and merged is what it was.
func FuzzSplit(f *testing.F) {
	f.Add([]byte("0123456789abcdef"), 4, "sha256")
	f.Add([]byte("01234567890123456789012345678901234567"), 3, "sha1")
	f.Fuzz(func(t *testing.T, key []byte, stripes int, hash string) {
		h, err := findHash(hash)
		if err != nil || len(key) == 0 || len(key) > 200 || stripes < 1 || stripes > 50 {
			return
		}
		noise := bytes.Repeat([]byte{1, 2, 3, 5, 7}, len(key)*stripes)
		material := split(key, stripes, h, noise)
		if got := merge(material, len(key), stripes, h); !bytes.Equal(got, key) {
			t.Errorf("%x, want %x", got, key)
		}
	})
}
