package thin

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"

	"udm/blk"
	"udm/dm"
)

// refuses loads each table of lines "TABLE => ERRNO REASON" into d.
func (r *rig) refuses(d *dm.Device, lines string) {
	r.Helper()
	for line := range strings.Lines(strings.TrimSpace(lines)) {
		table, want, _ := strings.Cut(strings.TrimSpace(line), " => ")
		name, reason, _ := strings.Cut(want, " ")
		errno := map[string]syscall.Errno{"EINVAL": syscall.EINVAL, "EBUSY": syscall.EBUSY, "ENODATA": syscall.ENODATA, "ENOTBLK": syscall.ENOTBLK, "EILSEQ": syscall.EILSEQ, "EPERM": syscall.EPERM, "EIO": syscall.EIO, "ENODEV": syscall.ENODEV}[name]
		specs, err := dm.ParseTable(table)
		r.Must(err)
		err = d.Load(specs, dm.Mode{Write: true})
		var e *dm.Error
		if !errors.As(err, &e) || e.Errno != errno || !strings.HasPrefix(e.Reason, reason) {
			r.Errorf("%s\ngot %v", line, err)
		}
	}
}

func (r *rig) empty(name string) *dm.Device {
	d, err := r.Control.Create(name, "", -1)
	r.Must(err)
	return d
}

func TestPoolRefuses(t *testing.T) {
	r := newRig(t)
	r.Rig.Refuses(`
		0 8192 thin-pool => EINVAL Invalid argument count
		0 8192 thin-pool m => EINVAL Invalid argument count
		0 8192 thin-pool m d => EINVAL Invalid argument count
		0 8192 thin-pool m d 128 => EINVAL Invalid argument count
		0 8192 thin-pool m d q 0 => EINVAL Invalid block size
		0 8192 thin-pool m d 0 0 => EINVAL Invalid block size
		0 8192 thin-pool m d 64 0 => EINVAL Invalid block size
		0 8192 thin-pool m d 129 0 => EINVAL Invalid block size
		0 8192 thin-pool m d 192 0 => EINVAL Invalid block size
		0 8192 thin-pool m d 4194304 0 => EINVAL Invalid block size
		0 8192 thin-pool m d 2097280 0 => EINVAL Invalid block size
		0 8192 thin-pool m d -128 0 => EINVAL Invalid block size
		0 8192 thin-pool m d 128 q => EINVAL Invalid low water mark
		0 8192 thin-pool m d 128 -1 => EINVAL Invalid low water mark
		0 8192 thin-pool m d 128 0 q => EINVAL Invalid number of pool feature arguments
		0 8192 thin-pool m d 128 0 1 => EINVAL Invalid number of pool feature arguments
		0 8192 thin-pool m d 128 0 5 read_only => EINVAL Invalid number of pool feature arguments
		0 8192 thin-pool m d 128 0 5 a b c d e => EINVAL Invalid number of pool feature arguments
		0 8192 thin-pool m d 128 0 1 nosuch => EINVAL Unrecognised pool feature requested
		0 8192 thin-pool m m 128 0 => EINVAL Error setting metadata or data device
		0 8192 thin-pool /none d 128 0 => ENODEV Error opening metadata block device
		0 8192 thin-pool m /none 128 0 => ENODEV Error getting data device
		0 32896 thin-pool m d 128 0 => EINVAL 7:3 too small for target: start=0, len=32896, dev_size=16384
	`)
	r.refuses(r.empty("ro"), `0 8192 thin-pool x d 128 0 1 read_only => EPERM Error creating metadata object`)
}

func TestPoolRefusesForeignAndDamagedMetadata(t *testing.T) {
	r := newRig(t)
	d := r.empty("p")
	r.Must(blk.WriteSectors(r.Sim, r.Disk("f"), []byte(strings.Repeat("x", 512)), 0, 0))
	r.refuses(d, `0 8192 thin-pool f d 128 0 => ENOTBLK Error creating metadata object: corrupt metadata: block 0`)
	r.start(64)
	r.Must(r.pool.Close())
	r.refuses(d, `0 8192 thin-pool m d 256 0 => EINVAL Error creating metadata object`)
	p := make([]byte, 512)
	r.Must(blk.ReadSectors(r.Sim, r.Disk("m"), p, 0))
	p[45]++
	r.Must(blk.WriteSectors(r.Sim, r.Disk("m"), p, 0, 0))
	r.refuses(d, `0 8192 thin-pool m d 128 0 => EILSEQ Error creating metadata object: corrupt metadata: block 0`)
	r.pool = nil
}

func TestPoolDevicesAreItsOwn(t *testing.T) {
	r := newRig(t)
	r.start(64)
	r.refuses(r.empty("q"), `
		0 8192 thin-pool m e 128 0 => EBUSY metadata device already in use by a pool
		0 8192 thin-pool m d 128 0 => EBUSY metadata device already in use by a pool`)
	r.refuses(r.pool, `
		0 8192 thin-pool m e 128 0 => EBUSY data device already in use by a pool
		0 8192 thin-pool f d 128 0 => EINVAL different pool cannot replace a pool
		0 8192 thin-pool m d 128 0 1 ignore_discard => EINVAL Discard support cannot be disabled once enabled`)
}

func TestThinRefuses(t *testing.T) {
	r := newRig(t)
	r.start(64)
	d := r.thin(0, 16)
	x := r.empty("x")
	r.refuses(x, `
		0 128 thin => EINVAL Invalid argument count
		0 128 thin /dev/mapper/pool => EINVAL Invalid argument count
		0 128 thin /dev/mapper/pool 0 o 1 => EINVAL Invalid argument count
		0 128 thin /dev/mapper/pool q => EINVAL Invalid device id
		0 128 thin /dev/mapper/pool -1 => EINVAL Invalid device id
		0 128 thin /dev/mapper/pool 16777216 => EINVAL Invalid device id
		0 128 thin /dev/mapper/pool 1 => ENODATA Couldn't open thin internal device
		0 128 thin d 0 => EINVAL Couldn't get pool mapped device
		0 128 thin /none 0 => ENODEV Error opening pool device
		0 128 thin /dev/mapper/thin0 0 => EINVAL Couldn't find pool object
		0 128 thin /dev/mapper/pool 0 /none => ENODEV Error opening origin device
		0 128 thin /dev/mapper/pool 0 /dev/mapper/pool => EINVAL Error setting origin device`)
	r.Suspend(r.pool, false)
	r.refuses(x, `0 128 thin /dev/mapper/pool 0 => EINVAL Unable to activate thin device while pool is suspended`)
	r.Resume(r.pool)
	r.Must(d.Close())
	if got := r.pool.Status().Opens; got != 0 {
		t.Fatalf("pool has %d opens left", got)
	}
}

func TestMessages(t *testing.T) {
	r := newRig(t)
	r.start(64)
	for _, m := range []struct {
		text  string
		errno syscall.Errno
	}{
		{"create_thin 0", 0}, {"create_thin 0", syscall.EEXIST}, {"create_thin 16777215", 0},
		{"create_thin 16777216", syscall.EINVAL}, {"create_thin q", syscall.EINVAL}, {"create_thin", syscall.EINVAL},
		{"create_thin 1 2", syscall.EINVAL}, {"CREATE_thin 1", 0}, {"create_snap 2 1", 0},
		{"create_snap 2 1", syscall.EEXIST}, {"create_snap 3 99", syscall.ENODATA}, {"create_snap 3", syscall.EINVAL},
		{"create_snap q 1", syscall.EINVAL}, {"create_snap 3 q", syscall.EINVAL}, {"delete 99", syscall.ENODATA},
		{"delete q", syscall.EINVAL}, {"delete", syscall.EINVAL}, {"delete 2", 0}, {"delete 2", syscall.ENODATA},
		{"set_transaction_id 0 1", 0}, {"set_transaction_id 0 2", syscall.EINVAL}, {"set_transaction_id 1", syscall.EINVAL},
		{"set_transaction_id q 2", syscall.EINVAL}, {"set_transaction_id 1 q", syscall.EINVAL},
		{"set_transaction_id 1 18446744073709551615", 0}, {"set_transaction_id 18446744073709551615 7", 0},
		{"reserve_metadata_snap", 0}, {"reserve_metadata_snap", syscall.EBUSY}, {"reserve_metadata_snap 1", syscall.EINVAL},
		{"release_metadata_snap", 0}, {"release_metadata_snap", syscall.EINVAL}, {"release_metadata_snap 1", syscall.EINVAL},
		{"nosuch", syscall.EINVAL},
	} {
		r.Message(r.pool, m.text, "", m.errno)
	}
	d := r.open(0, 16)
	r.Message(r.pool, "delete 0", "", syscall.EBUSY)
	r.Must(d.Close())
	r.msg("delete 0")
	r.Lines(r.pool, dm.Info, "0 8192 thin-pool 7 62/512 0/64 - rw discard_passdown queue_if_no_space - 128 ")
}

// The figures are those of the kernel's answers in test/kernel.
func TestStatusAndTable(t *testing.T) {
	r := newRig(t)
	r.start(64)
	r.Lines(r.pool, dm.Info, "0 8192 thin-pool 0 60/512 0/64 - rw discard_passdown queue_if_no_space - 128 ")
	r.Lines(r.pool, dm.TableText, "0 8192 thin-pool 7:12 7:3 128 0 0 ")
	r.msg("create_thin 0")
	r.msg("create_thin 16777215")
	r.msg("create_thin 1")
	r.msg("reserve_metadata_snap")
	if f := r.info(r.pool); f[3] == "-" {
		t.Errorf("no held root in %v", f)
	}
	r.msg("release_metadata_snap")
	d := r.Device("t", "0 65536 thin /dev/mapper/pool 0 o")
	r.Lines(d, dm.TableText, "0 65536 thin 254:0 0 7:14")
	r.Lines(d, dm.Info, "0 65536 thin 0 -")
	r.Write(d, 65535, 1, 1)
	r.Lines(d, dm.Info, "0 65536 thin 128 65535")
	r.usage(1)
	for _, f := range []struct{ words, table, discard, space, mode string }{
		{"1 skip_block_zeroing", "1 skip_block_zeroing ", "discard_passdown", "queue_if_no_space", "rw"},
		{"1 NO_discard_passdown", "1 no_discard_passdown ", "no_discard_passdown", "queue_if_no_space", "rw"},
		{"1 error_if_no_space", "1 error_if_no_space ", "discard_passdown", "error_if_no_space", "rw"},
		{"0 spare", "0 ", "discard_passdown", "queue_if_no_space", "rw"},
		{"4 error_if_no_space read_only no_discard_passdown skip_block_zeroing",
			"4 skip_block_zeroing no_discard_passdown read_only error_if_no_space ", "no_discard_passdown", "error_if_no_space", "ro"},
	} {
		r.Swap(r.pool, "0 8192 thin-pool m d 128 9 "+f.words)
		r.Lines(r.pool, dm.TableText, "0 8192 thin-pool 7:12 7:3 128 9 "+f.table)
		r.Lines(r.pool, dm.Info, "0 8192 thin-pool 0 63/512 1/64 - "+f.mode+" "+f.discard+" "+f.space+" - 128 ")
	}
	r.Message(r.pool, "create_thin 50", "", syscall.EOPNOTSUPP)
	r.Message(r.pool, "nosuch", "", syscall.EOPNOTSUPP)
}

// TestMetadataOfNoSize: the metadata device is too small for a superblock and refused.
func TestMetadataOfNoSize(t *testing.T) {
	r := newRig(t)
	d := r.empty("p")
	for _, sectors := range []uint64{0, 7} {
		r.Disk("x").Resize(sectors)
		r.refuses(d, "0 8192 thin-pool x d 128 0 => EIO Error creating metadata object: the metadata device is too small for a superblock")
	}
}

func TestIgnoreDiscard(t *testing.T) {
	r := newRig(t)
	r.start(64, "ignore_discard")
	r.Lines(r.pool, dm.TableText, "0 8192 thin-pool 7:12 7:3 128 0 1 ignore_discard ")
	if f := r.info(r.pool); f[5] != "ignore_discard" {
		t.Errorf("status %v", f)
	}
	d := r.thin(0, 16)
	if l := d.Limits(); l.MaxDiscard != 0 || l.DiscardGranularity != 0 {
		t.Errorf("thin's limits %+v", l)
	}
	if l := r.pool.Limits(); l.MaxDiscard != 0 {
		t.Errorf("pool's limits %+v", l)
	}
	r.Do(d, blk.Discard, 0, 128, 0, blk.NotSupported)
}

func TestLimits(t *testing.T) {
	r := newRig(t)
	r.start(64)
	d := r.thin(0, 16)
	if l := r.pool.Limits(); l.MinIO != 65536 || l.OptIO != 65536 || l.MaxDiscard == 0 {
		t.Errorf("pool %+v", l)
	}
	if l := d.Limits(); l.DiscardGranularity != 65536 || l.MaxDiscard != 33554432 || !l.VolatileCache || l.MaxWriteZeroes != 0 || l.OptIO != 65536 {
		t.Errorf("thin %+v", l)
	}
}

func TestShrunkPoolIsRefused(t *testing.T) {
	r := newRig(t)
	r.start(64)
	for _, blocks := range []uint64{63, 0} {
		specs, err := dm.ParseTable("0 64 thin-pool m d 128 0")
		r.Must(err)
		specs[0].Len += blocks * bs
		r.Must(r.pool.Load(specs, dm.Mode{Write: true}))
		if err := r.pool.Resume(context.Background(), false); dm.ErrnoOf(err) != syscall.EINVAL || !strings.Contains(err.Error(), "too small: expected 64") {
			t.Fatalf("%d blocks: %v", blocks, err)
		}
		if !r.pool.Status().Suspended {
			t.Fatal("pool runs")
		}
	}
	r.Swap(r.pool, poolTable(64))
	r.Swap(r.pool, poolTable(100))
	r.Lines(r.pool, dm.Info, "0 12800 thin-pool 0 60/512 0/100 - rw discard_passdown queue_if_no_space - 128 ")
}
