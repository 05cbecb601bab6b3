package integrity_test

import (
	"fmt"
	"testing"

	"udm/blk"
	"udm/dm"
	"udm/env"
	"udm/targets/integrity"
)

// untagged is a table for tags of another device.
const untagged = "0 512 integrity a 0 28 J 3 journal_sectors:1 interleave_sectors:64 buffer_sectors:64"

// FuzzDisk opens a disk with an arbitrary superblock and start of the journal, with a table
// that matches the superblock. The table is refused, or the device processes I/O.
func FuzzDisk(f *testing.F) {
	for _, table := range append(tables[:2:2], small, tables[6], tables[7], untagged) {
		base := newDisks(4096)
		sim := env.NewStepped()
		x, err := start(base, table, dm.Mode{Write: true})
		if err != nil {
			f.Fatal(err)
		}
		if err := x.control.Close(); err != nil {
			f.Fatal(err)
		}
		p := make([]byte, 12*512)
		if err := blk.ReadSectors(sim, base.mems["a"], p, 0); err != nil {
			f.Fatal(err)
		}
		f.Add(p[:64], p[8*512:])
	}
	f.Fuzz(func(t *testing.T, superblock, journal []byte) {
		d := newDisks(4096)
		sim := env.NewStepped()
		p := make([]byte, 16*512)
		copy(p, superblock[:min(len(superblock), 64)])
		copy(p[8*512:], journal)
		if err := blk.WriteSectors(sim, d.mems["a"], p, 0, blk.FUA); err != nil {
			t.Fatal(err)
		}
		s, err := integrity.ReadSuperblock(sim, d.mems["a"], 0)
		if err != nil {
			return
		}
		for _, words := range []string{"R 2 internal_hash:crc32c", "B 2 internal_hash:crc32c", "D 2 internal_hash:crc32c", "J 2 internal_hash:crc32c", "J 1", "D 1",
			"J 4 internal_hash:crc32c " + sealedBy("ctr(aes)"), "J 4 internal_hash:crc32c " + sealedBy("cbc(aes)")} {
			table := fmt.Sprintf("0 64 integrity a 0 %d %s block_size:%d", s.TagSize, words, 512<<(s.LogBlock&3))
			x, err := start(d, table, dm.Mode{Write: true})
			if err != nil {
				continue
			}
			for _, op := range []blk.Op{blk.Read, blk.Write, blk.Flush} {
				b := &blk.Bio{Op: op}
				if op.HasData() {
					b.SetData(make([]byte, 4096))
				}
				blk.Do(x.sim, x, b)
			}
			if err := x.control.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}
