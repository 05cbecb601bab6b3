package flakey_test

import (
	"bytes"
	"syscall"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
	"udm/targets/flakey"
	"udm/targets/internal/targettest"
	"udm/targets/linear"
)

var types = []*dm.Type{flakey.Type(), linear.Type()}

func TestConforms(t *testing.T) {
	targettest.Conforms(t, blktest.Suite{}, types, "0 8192 flakey a 3 3600 0")
}

func TestConformsThreeDeep(t *testing.T) {
	targettest.Conforms(t, blktest.Suite{}, types, "0 8192 linear a 5", "0 5000 flakey /dev/dm-0 100 3600 1 1 drop_writes", "0 2000 linear b 0\n2000 2096 flakey /dev/dm-1 0 3600 1")
}

func TestRefuses(t *testing.T) {
	targettest.New(t, types).Refuses(`
		0 64 flakey => EINVAL Invalid argument count
		0 64 flakey a 0 1 => EINVAL Invalid argument count
		0 64 flakey a q 1 1 => EINVAL Invalid device sector
		0 64 flakey a 0 q 1 => EINVAL Invalid up interval
		0 64 flakey a 0 1 q => EINVAL Invalid up interval
		0 64 flakey a 0 -1 1 => EINVAL Invalid up interval
		0 64 flakey a 0 0 0 => EINVAL Total (up + down) interval is zero
		0 64 flakey a 0 4294967295 1 => EINVAL Total (up + down) interval is zero
		0 64 flakey a 0 4294967295 2 => EINVAL Interval overflow
		0 64 flakey a 0 1 1 q => EINVAL Invalid number of feature args
		0 64 flakey a 0 1 1 7 drop_writes => EINVAL Invalid number of feature args
		0 64 flakey a 0 1 1 -1 => EINVAL Invalid number of feature args
		0 64 flakey a 0 1 1 1 => EINVAL Invalid number of feature args
		0 64 flakey a 0 1 1 2 drop_writes => EINVAL Invalid number of feature args
		0 64 flakey a 0 1 1 1 no_such_feature => EINVAL Unrecognised flakey feature requested
		0 64 flakey a 0 1 1 2 error_reads ERROR_READS => EINVAL Feature error_reads duplicated
		0 64 flakey a 0 1 1 12 error_reads => EINVAL Invalid number of feature args
		0 64 flakey a 0 1 1 1 random_read_corrupt => EINVAL Feature random_read_corrupt requires a parameter
		0 64 flakey a 0 1 1 1 random_write_corrupt 1 => EINVAL Feature random_write_corrupt requires a parameter
		0 64 flakey a 0 1 1 2 random_read_corrupt 1000000001 => EINVAL Invalid random corrupt argument
		0 64 flakey a 0 1 1 4 random_read_corrupt 1 random_read_corrupt 1 => EINVAL Feature random_read_corrupt duplicated
		0 64 flakey a 0 1 1 4 random_write_corrupt 1 random_write_corrupt 1 => EINVAL Feature random_write_corrupt duplicated
		0 64 flakey a 0 1 1 3 drop_writes random_write_corrupt 1 => EINVAL drop_writes is incompatible with random_write_corrupt or corrupt_bio_byte with the WRITE flag set
		0 64 flakey a 0 1 1 7 error_reads error_writes corrupt_bio_byte 1 w 1 0 => EINVAL error_writes is incompatible with random_write_corrupt or corrupt_bio_byte with the WRITE flag set
		0 64 flakey a 0 1 1 3 error_reads random_read_corrupt 1 => EINVAL error_reads is incompatible with random_read_corrupt or corrupt_bio_byte with the READ flag set
		0 64 flakey a 0 1 1 6 error_reads corrupt_bio_byte 1 r 1 0 => EINVAL error_reads is incompatible with random_read_corrupt or corrupt_bio_byte with the READ flag set
		0 64 flakey a 0 1 1 2 drop_writes drop_writes => EINVAL Feature drop_writes duplicated
		0 64 flakey a 0 1 1 2 error_writes error_writes => EINVAL Feature error_writes duplicated
		0 64 flakey a 0 1 1 2 drop_writes error_writes => EINVAL Feature error_writes conflicts with feature drop_writes
		0 64 flakey a 0 1 1 2 error_writes drop_writes => EINVAL Feature drop_writes conflicts with feature error_writes
		0 64 flakey a 0 1 1 1 corrupt_bio_byte => EINVAL Feature corrupt_bio_byte requires parameters
		0 64 flakey a 0 1 1 1 corrupt_bio_byte 1 w 1 0 => EINVAL Feature corrupt_bio_byte requires parameters
		0 64 flakey a 0 1 1 2 corrupt_bio_byte 1 => EINVAL Invalid corrupt bio direction (r or w)
		0 64 flakey a 0 1 1 3 corrupt_bio_byte 1 r => EINVAL Invalid corrupt value to write into bio byte (0-255)
		0 64 flakey a 0 1 1 4 corrupt_bio_byte 1 r 1 => EINVAL Invalid corrupt bio flags mask
		0 64 flakey a 0 1 1 2 corrupt_bio_byte 1 r 1 0 => EINVAL Insufficient feature arguments
		0 64 flakey a 0 1 1 5 corrupt_bio_byte 0 r 1 0 => EINVAL Invalid corrupt bio byte
		0 64 flakey a 0 1 1 5 corrupt_bio_byte q r 1 0 => EINVAL Invalid corrupt bio byte
		0 64 flakey a 0 1 1 5 corrupt_bio_byte 1 x 1 0 => EINVAL Invalid corrupt bio direction (r or w)
		0 64 flakey a 0 1 1 5 corrupt_bio_byte 1 r 256 0 => EINVAL Invalid corrupt value to write into bio byte (0-255)
		0 64 flakey a 0 1 1 5 corrupt_bio_byte 1 r q 0 => EINVAL Invalid corrupt value to write into bio byte (0-255)
		0 64 flakey a 0 1 1 5 corrupt_bio_byte 1 r 1 q => EINVAL Invalid corrupt bio flags mask
		0 64 flakey a 0 1 1 6 drop_writes corrupt_bio_byte 1 w 1 0 => EINVAL drop_writes is incompatible with corrupt_bio_byte with the WRITE flag set
		0 64 flakey a 0 1 1 6 error_writes corrupt_bio_byte 1 w 1 0 => EINVAL error_writes is incompatible with corrupt_bio_byte with the WRITE flag set
		0 64 flakey a 0 1 1 6 corrupt_bio_byte 1 w 1 0 drop_writes => EINVAL drop_writes is incompatible with corrupt_bio_byte with the WRITE flag set
		0 64 flakey /none 0 1 1 => ENODEV Device lookup failed
		0 64 flakey a 16380 1 1 => EINVAL 7:0 too small for target: start=16380, len=64, dev_size=16384
	`)
}

func TestText(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 64 flakey a 8 3600 0")
	for _, c := range [][2]string{
		{"8 3600 0", "8 3600 0 0 "},
		{"8 0 3600 0 spare words", "8 0 3600 0 "},
		{"0 4294967296 1", "0 0 1 0 "},
		{"0 1 1 1 DROP_WRITES", "0 1 1 1 drop_writes "},
		{"0 1 1 1 error_writes", "0 1 1 1 error_writes "},
		{"0 1 1 5 corrupt_bio_byte 513 R 17 0", "0 1 1 5 corrupt_bio_byte 513 r 17 0 "},
		{"0 1 1 5 corrupt_bio_byte 1 w 1 4294967295", "0 1 1 5 corrupt_bio_byte 1 w 1 4294967295 "},
		{"0 1 1 1 error_reads", "0 1 1 1 error_reads"},
		{"0 1 1 2 error_writes error_reads", "0 1 1 2 error_reads error_writes"},
		{"0 1 1 4 random_write_corrupt 7 random_read_corrupt 1000000000", "0 1 1 4 random_read_corrupt 1000000000 random_write_corrupt 7"},
		{"0 1 1 9 random_read_corrupt 5 corrupt_bio_byte 1 w 2 0 random_write_corrupt 6",
			"0 1 1 9 corrupt_bio_byte 1 w 2 0 random_read_corrupt 5 random_write_corrupt 6"},
		{"0 1 1 2 random_read_corrupt 0", "0 1 1 0 "},
		{"0 1 1 6 corrupt_bio_byte 2 r 7 0 drop_writes", "0 1 1 6 drop_writes corrupt_bio_byte 2 r 7 0 "},
	} {
		r.Swap(d, "0 64 flakey a "+c[0])
		r.Lines(d, dm.TableText, "0 64 flakey 7:0 "+c[1])
		r.Lines(d, dm.Info, "0 64 flakey ")
	}
	r.Message(d, "hello", "", syscall.EINVAL)
}

func TestUpAndDown(t *testing.T) {
	r := targettest.New(t, types)
	r.Sim.Advance(100 * time.Second)
	d := r.Device("x", "0 64 flakey a 8 5 2")
	for s := range 21 {
		st := blk.OK
		if s%7 >= 5 {
			st = blk.IOErr
		}
		r.Do(d, blk.Write, 0, 8, uint64(s+1), st)
		r.Do(d, blk.Read, 0, 8, 0, st)
		r.Do(d, blk.Flush, 0, 0, 0, st)
		r.Do(d, blk.Discard, 16, 8, 0, st)
		r.Sim.Advance(time.Second)
	}
	r.WantDisk("a", 8, 8, 0, 19)
}

// down makes a device that is down from the beginning, with the pattern of seed
// 5 on it.
func down(r *targettest.Rig, features string) *dm.Device {
	d := r.Device("x", "0 64 linear a 8")
	r.Write(d, 0, 64, 5)
	r.Swap(d, "0 64 flakey a 8 0 3600 "+features)
	r.Gate("a").Forget()
	return d
}

func TestDropWrites(t *testing.T) {
	r := targettest.New(t, types)
	d := down(r, "1 drop_writes")
	r.Write(d, 0, 8, 6)
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	r.Do(d, blk.Discard, 0, 8, 0, blk.OK)
	r.Want(d, 0, 64, 0, 5)
	r.Trace("a", "read 8+64\n")
}

func TestErrorWrites(t *testing.T) {
	r := targettest.New(t, types)
	d := down(r, "1 error_writes")
	r.Do(d, blk.Write, 0, 8, 6, blk.IOErr)
	r.Do(d, blk.Flush, 0, 0, 0, blk.IOErr)
	r.Do(d, blk.Discard, 0, 8, 0, blk.IOErr)
	r.Want(d, 0, 64, 0, 5)
	r.Trace("a", "read 8+64\n")
}

// spoiled checks that only byte nth, from 1 on, of the pattern is value.
func spoiled(t *testing.T, p []byte, sector, seed uint64, nth int, value byte) {
	t.Helper()
	want := blktest.Pattern(sector, uint64(len(p))/blk.SectorSize, seed)
	want[nth-1] = value
	if !bytes.Equal(p, want) {
		t.Error("not exactly that byte was corrupted")
	}
}

func TestCorruptReads(t *testing.T) {
	for _, other := range []string{"5 ", "6 drop_writes ", "6 error_writes "} {
		r := targettest.New(t, types)
		d := down(r, other+"corrupt_bio_byte 513 r 17 0")
		x := r.Do(d, blk.Read, 8, 4, 1, blk.OK)
		spoiled(t, x.Data, 8, 5, 513, 17)
		r.Want(d, 8, 1, 8, 5) // too short
		r.WantDisk("a", 8, 64, 0, 5)
	}
}

func TestCorruptReadsInOddBuffers(t *testing.T) {
	r := targettest.New(t, types)
	d := down(r, "5 corrupt_bio_byte 600 r 17 0")
	p := make([]byte, 1024)
	b := &blk.Bio{Sector: 8, End: func(*blk.Bio) {}}
	b.SetBufs([][]byte{p[:100], p[100:599], p[599:]}, 2)
	d.Submit(b)
	spoiled(t, p, 8, 5, 600, 17)
}

func TestFailedReadsAreNotTouched(t *testing.T) {
	r := targettest.New(t, types)
	d := down(r, "5 corrupt_bio_byte 1 r 17 0")
	r.Gate("a").Shut()
	x := r.Submit(d, blk.Read, 0, 0, 8, 9)
	r.Gate("a").Fail(r.Gate("a").Held()[0].Index, blk.NoSpace)
	r.Done(x, blk.NoSpace)
	if err := blktest.Check(x.Data, 0, 9); err != nil {
		t.Error(err)
	}
}

func TestCorruptWrites(t *testing.T) {
	r := targettest.New(t, types)
	d := down(r, "5 corrupt_bio_byte 3 w 99 0")
	x := r.Do(d, blk.Write, 0, 8, 6, blk.OK)
	if err := blktest.Check(x.Data, 0, 6); err != nil {
		t.Errorf("the submitter's buffer: %v", err)
	}
	p := make([]byte, 8*blk.SectorSize)
	r.Must(blk.ReadSectors(r.Sim, r.Disk("a"), p, 8))
	spoiled(t, p, 0, 6, 3, 99)
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	r.Do(d, blk.Discard, 8, 8, 0, blk.OK)
	r.Trace("a", "write 8+8\nflush 8+0\ndiscard 16+8\n")
}

func TestCorruptOnlyWithFlags(t *testing.T) {
	r := targettest.New(t, types)
	d := down(r, "5 corrupt_bio_byte 1 w 99 131073") // FUA writes
	r.Write(d, 0, 8, 6)
	r.WantDisk("a", 8, 8, 0, 6)
	r.Done(r.Submit(d, blk.Write, blk.FUA, 0, 8, 7), blk.OK)
	p := make([]byte, 8*blk.SectorSize)
	r.Must(blk.ReadSectors(r.Sim, r.Disk("a"), p, 8))
	spoiled(t, p, 0, 7, 1, 99)
}

func TestErrorReads(t *testing.T) {
	r := targettest.New(t, types)
	d := down(r, "1 error_reads")
	r.Do(d, blk.Read, 0, 8, 1, blk.IOErr)
	r.Write(d, 0, 8, 6)
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	r.WantDisk("a", 8, 8, 0, 6)
	r.Swap(d, "0 64 flakey a 8 0 3600 2 error_reads error_writes")
	r.Do(d, blk.Read, 0, 8, 1, blk.IOErr)
	r.Do(d, blk.Write, 0, 8, 7, blk.IOErr)
	r.WantDisk("a", 8, 8, 0, 6)
}

// changed counts the bytes of p that are not those of the pattern.
func changed(p []byte, sector, seed uint64) (n int) {
	for i, b := range blktest.Pattern(sector, uint64(len(p))/blk.SectorSize, seed) {
		if p[i] != b {
			n++
		}
	}
	return n
}

// Of many reads and writes about as many are corrupted as the chance says, each in one
// byte at most, and writes in a copy.
func TestCorruptsByChance(t *testing.T) {
	for _, c := range []struct {
		chance   string
		min, max int // of 400; a byte may get the value that it has
	}{{"1000000000", 380, 400}, {"500000000", 140, 260}, {"1", 0, 0}} {
		r := targettest.New(t, types)
		d := down(r, "2 random_read_corrupt "+c.chance)
		reads, writes := 0, 0
		for range 400 {
			reads += changed(r.Do(d, blk.Read, 8, 8, 1, blk.OK).Data, 8, 5)
		}
		r.Swap(d, "0 64 flakey a 8 0 3600 2 random_write_corrupt "+c.chance)
		for i := range uint64(400) {
			x := r.Do(d, blk.Write, 8, 8, i, blk.OK)
			if err := blktest.Check(x.Data, 8, i); err != nil {
				t.Errorf("the submitter's buffer: %v", err)
			}
			writes += changed(r.Do(d, blk.Read, 8, 8, 1, blk.OK).Data, 8, i)
		}
		for _, n := range []int{reads, writes} {
			if n < c.min || n > c.max {
				t.Errorf("chance %s: %d reads and %d writes of 400", c.chance, reads, writes)
			}
		}
	}
}

// TestOnlyWhileDown: what is sent while up is not corrupted, also when it ends
// while down.
func TestOnlyWhileDown(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 64 flakey a 8 1 1 5 corrupt_bio_byte 1 r 99 0")
	r.Write(d, 0, 8, 5)
	r.Gate("a").Shut()
	x := r.Submit(d, blk.Read, 0, 0, 8, 9)
	r.Sim.Advance(time.Second)
	r.Gate("a").Open()
	r.Done(x, blk.OK)
	if err := blktest.Check(x.Data, 0, 5); err != nil {
		t.Error(err)
	}
	for range 10 {
		x = r.Do(d, blk.Read, 0, 8, 9, blk.OK)
		spoiled(t, x.Data, 0, 5, 1, 99)
	}
	r.Sim.Advance(time.Second)
	for range 10 {
		r.Want(d, 0, 8, 0, 5)
	}
}

// TestCorruptReadsThatWereSplitBelow: the device below moves on in the bio.
func TestCorruptReadsThatWereSplitBelow(t *testing.T) {
	r := targettest.New(t, types)
	r.Device("low", "0 12 linear a 8\n12 52 linear a 20")
	d := r.Device("x", "0 64 linear /dev/mapper/low 0")
	r.Write(d, 0, 64, 5)
	r.Swap(d, "0 64 flakey /dev/mapper/low 0 0 3600 5 corrupt_bio_byte 513 r 17 0")
	x := r.Do(d, blk.Read, 8, 8, 1, blk.OK)
	spoiled(t, x.Data, 8, 5, 513, 17)
}
