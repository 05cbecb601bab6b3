package unstriped_test

import (
	"syscall"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
	"udm/targets/internal/targettest"
	"udm/targets/linear"
	"udm/targets/striped"
	"udm/targets/unstriped"
)

var types = []*dm.Type{unstriped.Type(), striped.Type(), linear.Type()}

func TestConforms(t *testing.T) {
	targettest.Conforms(t, blktest.Suite{}, types, "0 4096 unstriped 3 16 2 a 16")
}

func TestConformsThreeDeep(t *testing.T) {
	targettest.Conforms(t, blktest.Suite{}, types, "0 8192 striped 2 8 a 0 b 0", "0 4096 unstriped 2 8 1 /dev/dm-0 0", "0 2048 unstriped 2 4 0 /dev/dm-1 0")
}

func TestRefuses(t *testing.T) {
	targettest.New(t, types).Refuses(`
		0 64 unstriped => EINVAL Invalid number of arguments
		0 64 unstriped 2 8 0 a => EINVAL Invalid number of arguments
		0 64 unstriped 2 8 0 a 0 0 => EINVAL Invalid number of arguments
		0 64 unstriped 0 8 0 a 0 => EINVAL Invalid stripe count
		0 64 unstriped q 8 0 a 0 => EINVAL Invalid stripe count
		0 64 unstriped 2 0 0 a 0 => EINVAL Invalid chunk_size
		0 64 unstriped 2 q 0 a 0 => EINVAL Invalid chunk_size
		0 64 unstriped 2 6 0 a 0 => EINVAL Target length not divisible by chunk size
		0 64 unstriped 2 8 q a 0 => EINVAL Invalid stripe number
		0 64 unstriped 2 8 3 a 0 => EINVAL Please provide stripe between [0, # of stripes]
		0 64 unstriped 2 8 0 /none 0 => EINVAL Couldn't get striped device
		0 64 unstriped 2 8 0 a q => EINVAL Invalid striped device offset
		0 64 unstriped 2 128 1 a 0 => EINVAL Target length not divisible by chunk size
		0 60 unstriped 2 8 1 a 16 => EINVAL Target length not divisible by chunk size
		0 64 unstriped 2 8 1 a 16380 => EINVAL 7:0 too small for target: start=16380, len=64, dev_size=16384
	`)
}

func TestText(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 64 unstriped +2 8 2 a 16")
	r.Lines(d, dm.TableText, "0 64 unstriped 2 8 2 7:0 16")
	r.Lines(d, dm.Info, "0 64 unstriped ")
	r.Swap(d, "0 64 unstriped 1 8 5 a 0")
	r.Message(d, "hello", "", syscall.EINVAL)
}

// TestFindsStripes: each stripe of a striped device is what was written to it.
func TestFindsStripes(t *testing.T) {
	r := targettest.New(t, types)
	all := r.Device("all", "0 480 striped 3 10 a 0 b 0 c 0")
	for i := range 3 {
		name := string(rune('0' + i))
		d := r.Device("s"+name, "0 160 unstriped 3 10 "+name+" /dev/mapper/all 0")
		r.Write(d, 0, 160, uint64(i+1))
		r.WantDisk(string(rune('a'+i)), 0, 160, 0, uint64(i+1))
		r.Want(d, 33, 51, 33, uint64(i+1))
		r.Do(d, blk.Discard, 0, 10, 0, blk.NotSupported)
	}
	r.Want(all, 40, 10, 10, 2)
}
