package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"udm"
	"udm/blk"
	"udm/blk/blktest"
	"udm/env"
)

// damagedPool makes a pool with two volumes in files, and destroys its superblock. Volume
// 0 has the pattern of seed 7 from 1 MiB on.
func damagedPool(c *commands) {
	c.Helper()
	c.write("meta", make([]byte, 2<<20))
	c.write("data", make([]byte, 16<<20))
	s := udm.New()
	pool, err := s.Create("pool", "0 32768 thin-pool "+c.path("meta")+" "+c.path("data")+" 128 0")
	for i, v := range []string{"0", "1"} {
		if err == nil {
			_, err = pool.Message("create_thin " + v)
		}
		var d *udm.Device
		if err == nil {
			d, err = s.Create("v"+v, "0 16384 thin /dev/mapper/pool "+v)
		}
		if err == nil && i == 0 {
			_, err = d.WriteAt(blktest.Pattern(2048, 2048, 7), 1<<20)
		}
	}
	if err := errors.Join(err, s.Close()); err != nil {
		c.Fatal(err)
	}
	p, err := os.ReadFile(c.path("meta"))
	if err != nil {
		c.Fatal(err)
	}
	clear(p[:4096])
	c.write("meta", p)
}

// state is what a file holds and when it was last written to.
func state(c *commands, name string) string {
	c.Helper()
	p, err := os.ReadFile(c.path(name))
	info, err2 := os.Stat(c.path(name))
	if err := errors.Join(err, err2); err != nil {
		c.Fatal(err)
	}
	sum := sha256.Sum256(p)
	return string(sum[:]) + info.ModTime().String()
}

func TestRescue(t *testing.T) {
	c := &commands{t, "rescue", t.TempDir()}
	damagedPool(c)
	before := state(c, "meta") + state(c, "data")
	c.fails("@meta @data", "give --block-size")
	c.fails("@meta @data --block-size 64K --copy @out", "--copy needs --volume")
	c.fails("@meta @data --block-size 64K --volume 9", "no volume 9")

	var r rescueReport
	out, err := c.run(t.Context(), "@meta @data --block-size 64K --json")
	if code := exitCode(0); !errors.As(err, &code) || code != 1 {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if r.Source != "search" || len(r.Volumes) != 2 || r.Volumes[0].Mapped != 1<<20 || r.Volumes[0].Whole || r.Volumes[0].Size != 2<<20 {
		t.Errorf("found %+v", r)
	}
	if out, _ = c.run(t.Context(), "@meta @data --block-size 64K"); !strings.Contains(out, "trees found by search") || !strings.Contains(out, "0       1M      1M  1M") {
		t.Error(out)
	}
	if out, err = c.run(t.Context(), "@meta @data --block-size 64K --volume 0 --copy @out --size 4M"); err == nil {
		t.Error("a copy of what was found by search is whole")
	}
	want := make([]byte, 4<<20)
	copy(want[1<<20:], blktest.Pattern(2048, 2048, 7))
	if got, err := os.ReadFile(c.path("out")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the copy is another one: %v\n%s", err, out)
	}
	c.fails("@meta @data --block-size 64K --volume 0 --copy @out", "exists")
	c.serves("@meta @data --block-size 64K", func(d blk.Device) {
		got := make([]byte, 2<<20)
		if err := blk.ReadSectors(env.Real(), d, got, 0); err != nil || !bytes.Equal(got, want[:2<<20]) {
			t.Errorf("read something else, %v", err)
		}
	})
	if state(c, "meta")+state(c, "data") != before {
		t.Error("what was read was changed")
	}
}
