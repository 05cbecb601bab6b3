package fs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/filedev"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
	"udm/targets/snapshot"
	"udm/test/need"
)

// diskNames opens the disks of a test by name.
type diskNames map[string]blk.Device

func (d diskNames) Open(name string, _ bool) (blk.Device, dm.Number, error) {
	return kept{d[name]}, dm.Number{Major: 7, Minor: uint32(name[0])}, nil
}

// kept is a disk that outlives its openings.
type kept struct{ blk.Device }

func (kept) Close() error { return nil }

// TestSnapshotOnAFullFileSystem has a store in a sparse file, larger than its file
// system. Writes wait when that is full and go on when there is room again.
func TestSnapshotOnAFullFileSystem(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	other := filepath.Join(dir, "other")
	if err := os.WriteFile(other, make([]byte, 3<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	cow := sparse(t, filepath.Join(dir, "cow"), 8<<20)
	defer func() { _ = cow.Close() }()
	const chunks = 600 // 2.4 MiB
	origin := memdev.New(chunks * 8)
	must(t, blk.WriteSectors(env.Real(), origin, blktest.Pattern(0, chunks*8, 1), 0, 0))
	disks := diskNames{"O": origin, "C": cow}
	c := dm.NewControl(env.Real(), disks, snapshot.Types()...)
	o, s := device(t, c, "o", "snapshot-origin O"), device(t, c, "s", "snapshot O C P 8")

	var wg sync.WaitGroup
	var bios [chunks]blk.Bio
	ended := 0 // guarded by nothing: on tmpfs all is done on this stack until there is no room
	full := false
	for i := range bios {
		b := &bios[i]
		b.Op, b.Sector = blk.Write, uint64(i)*8
		b.SetData(blktest.Pattern(b.Sector, 1+uint64(i%2)*7, 2))
		done := false
		wg.Add(1)
		b.End = func(*blk.Bio) { done = true; wg.Done() }
		to := s
		if i%3 == 0 {
			to = o
		}
		if to.Submit(b); !done {
			full = true
			break
		}
		ended++
	}
	if !full {
		t.Fatalf("room for all %d chunks", ended)
	}
	if got := s.Lines(dm.Info, false, 0)[0].Params; got == "Invalid" || got == "Overflow" {
		t.Fatalf("the snapshot is %s", got)
	}
	check := func() {
		for i := range ended {
			at := uint64(i) * 8
			seed := uint64(2)
			if i%3 == 0 {
				seed = 1
			}
			p := make([]byte, 512)
			must(t, blk.ReadSectors(env.Real(), s, p, at))
			must(t, blktest.Check(p, at, seed))
		}
	}
	check()
	must(t, os.Remove(other))
	wg.Wait()
	if st := bios[ended].Status(); st != blk.OK {
		t.Fatalf("the write that waited ends with %v", st)
	}
	must(t, blk.FlushDevice(env.Real(), s))
	ended++
	check()
	must(t, c.Close())

	c = dm.NewControl(env.Real(), disks, snapshot.Types()...)
	device(t, c, "o", "snapshot-origin O")
	s = device(t, c, "s", "snapshot O C P 8")
	check()
	must(t, c.Close())
}

func sparse(t *testing.T, path string, size int64) blk.Device {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	must(t, f.Truncate(size))
	must(t, f.Close())
	d, err := filedev.Open(path, filedev.Options{})
	must(t, err)
	return d
}

func device(t *testing.T, c *dm.Control, name, line string) *dm.Device {
	t.Helper()
	specs, err := dm.ParseTable(fmt.Sprintf("0 %d %s", 600*8, line))
	must(t, err)
	d, err := c.Create(name, "", -1)
	must(t, err)
	must(t, d.Load(specs, dm.Mode{Write: true}))
	must(t, d.Resume(context.Background(), false))
	return d
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
