package dust_test

import (
	"syscall"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
	"udm/targets/dust"
	"udm/targets/internal/targettest"
	"udm/targets/linear"
)

var types = []*dm.Type{dust.Type(), linear.Type()}

func TestConforms(t *testing.T) {
	targettest.Conforms(t, blktest.Suite{}, types, "0 8192 dust a 3 2048")
}

func TestConformsThreeDeep(t *testing.T) {
	targettest.Conforms(t, blktest.Suite{}, types, "0 8192 dust a 0 512", "0 8000 linear /dev/dm-0 100", "0 4096 dust /dev/dm-1 8 4096")
}

func TestRefuses(t *testing.T) {
	targettest.New(t, types).Refuses(`
		0 64 dust => EINVAL Invalid argument count
		0 64 dust a 0 => EINVAL Invalid argument count
		0 64 dust a 0 512 1 => EINVAL Invalid argument count
		0 64 dust a 0 q => EINVAL Invalid block size parameter
		0 64 dust a 0 0 => EINVAL Invalid block size parameter
		0 64 dust a 0 -512 => EINVAL Invalid block size parameter
		0 64 dust a 0 256 => EINVAL Block size must be at least 512
		0 64 dust a 0 1536 => EINVAL Block size must be a power of 2
		0 64 dust a 0 65536 => EINVAL Block size is too large
		0 4194304 dust a 0 2147483648 => EINVAL Block size is too large
		0 64 dust a q 512 => EINVAL Invalid device offset sector
		0 64 dust /none 0 512 => EINVAL Device lookup failed
		0 64 dust a 16380 512 => EINVAL 7:0 too small for target: start=16380, len=64, dev_size=16384
	`)
}

// The answers are those of Linux 6.1.
func TestMessages(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 64 dust a 8 1024")
	r.Lines(d, dm.TableText, "0 64 dust 7:0 8 1024")
	r.Lines(d, dm.Info, "0 64 dust 7:0 bypass verbose")
	for _, c := range []struct {
		text, reply string
		errno       syscall.Errno
	}{
		{"addbadblock", "", syscall.EINVAL},
		{"removebadblock", "", syscall.EINVAL},
		{"queryblock", "", syscall.EINVAL},
		{"countbadblocks", "countbadblocks: 0 badblock(s) found", 0},
		{"clearbadblocks", "dust_clear_badblocks: no badblocks found", 0},
		{"listbadblocks", "No blocks in badblocklist", 0},
		{"hello", "", syscall.EINVAL},
		{"addbadblock 5", "", 0},
		{"addbadblock 5", "", syscall.EINVAL},
		{"addbadblock 7 3", "", 0},
		{"addbadblock 7 256", "", syscall.EINVAL},
		{"addbadblock q", "", syscall.EINVAL},
		{"addbadblock 1 q", "", syscall.EINVAL},
		{"queryblock 5", "dust_query_block: block 5 found in badblocklist", 0},
		{"queryblock 6", "dust_query_block: block 6 not found in badblocklist", 0},
		{"queryblock 6 7", "", syscall.EINVAL},
		{"hello 5", "", syscall.EINVAL},
		{"hello 5 6", "", syscall.EINVAL},
		{"LISTBADBLOCKS", "5\n7\n", 0},
		{"countbadblocks", "countbadblocks: 2 badblock(s) found", 0},
		{"removebadblock 9", "", syscall.EINVAL},
		{"removebadblock 7", "", 0},
		{"clearbadblocks", "dust_clear_badblocks: badblocks cleared", 0},
		{"clearbadblocks", "dust_clear_badblocks: no badblocks found", 0},
		{"a b c d", "", syscall.EINVAL},
		{"addbadblock 8192", "", 0},
		{"addbadblock 8193", "", syscall.EINVAL},
		{"enable", "", 0},
		{"quiet", "", 0},
	} {
		r.Message(d, c.text, c.reply, c.errno)
	}
	r.Lines(d, dm.Info, "0 64 dust 7:0 fail_read_on_bad_block quiet")
	r.Message(d, "disable", "", 0)
	r.Message(d, "quiet", "", 0)
	r.Lines(d, dm.Info, "0 64 dust 7:0 bypass verbose")
}

func TestBadBlocks(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 64 dust a 8 1024")
	r.Write(d, 0, 64, 1)
	r.Message(d, "addbadblock 6", "", 0) // sectors 12 and 13 of the disk
	r.Message(d, "addbadblock 9 2", "", 0)
	r.Do(d, blk.Read, 0, 64, 1, blk.OK)
	r.Message(d, "enable", "", 0)
	r.Do(d, blk.Read, 2, 2, 1, blk.OK)
	r.Do(d, blk.Read, 4, 1, 1, blk.IOErr)
	r.Do(d, blk.Read, 0, 64, 1, blk.IOErr)
	r.Do(d, blk.Read, 6, 2, 1, blk.OK)
	r.Write(d, 5, 1, 2)
	r.Want(d, 4, 1, 4, 1)
	r.Want(d, 5, 1, 5, 2)
	for range 2 {
		r.Do(d, blk.Write, 10, 2, 3, blk.IOErr)
		r.Do(d, blk.Read, 10, 2, 1, blk.IOErr)
	}
	r.Write(d, 10, 2, 3)
	r.Want(d, 10, 2, 10, 3)
	r.Message(d, "countbadblocks", "countbadblocks: 0 badblock(s) found", 0)
	r.Message(d, "addbadblock 6", "", 0)
	r.Message(d, "disable", "", 0)
	r.Write(d, 4, 2, 4)
	r.Want(d, 4, 2, 4, 4)
	r.Message(d, "countbadblocks", "countbadblocks: 1 badblock(s) found", 0)
}
