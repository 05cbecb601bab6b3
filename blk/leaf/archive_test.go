package leaf_test

import (
	"bytes"
	"testing"

	"udm/archive"
	"udm/blk"
	"udm/blk/leaf"
	"udm/env"
)

// TestArchive opens a snapshot in an archive.
func TestArchive(t *testing.T) {
	t.Setenv("UDM_CACHE", t.TempDir())
	dir := t.TempDir()
	s, err := archive.OpenDir(dir)
	if err == nil {
		err = archive.Init(t.Context(), s, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	a, err := archive.Open(t.Context(), s, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := a.Begin(t.Context(), archive.BackupOptions{Name: "snap", Size: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("archived"), 1<<17)
	if err := b.Data(1<<20+512, want); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Commit(""); err != nil {
		t.Fatal(err)
	}
	o := leaf.New(env.Real())
	name := "archive:snap:" + dir
	d, _, err := o.Open(name, false)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4<<20)
	if err := blk.ReadSectors(env.Real(), d, got, 0); err != nil || !bytes.Equal(got[1<<20+512:2<<20+512], want) {
		t.Errorf("read something else, %v", err)
	}
	if list := blk.ExtentsOf(d, 0, 8192); len(list) != 3 || list[0].Data || list[1] != (blk.Extent{Sector: 2049, Sectors: 2048, Data: true}) {
		t.Errorf("extents %v", list)
	}
	if err := blk.WriteSectors(env.Real(), d, got[:512], 0, 0); err != blk.ReadOnly {
		t.Errorf("a write: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"archive:snap", "archive::" + dir, "archive:snap:relative", "archive:other:" + dir, "archive:snap:" + t.TempDir()} {
		if _, _, err := o.Open(name, false); err == nil {
			t.Errorf("%s opens", name)
		}
	}
	if _, _, err := o.Open(name, true); err == nil {
		t.Error("it opens for writing")
	}
}
