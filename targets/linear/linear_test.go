package linear_test

import (
	"syscall"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
	"udm/targets/internal/targettest"
	"udm/targets/linear"
)

var types = []*dm.Type{linear.Type()}

func TestConforms(t *testing.T) {
	targettest.Conforms(t, blktest.Suite{}, types, "0 2048 linear b 7\n2048 5001 linear a 100\n7049 1143 linear b 3000")
}

func TestConformsThreeDeep(t *testing.T) {
	targettest.Conforms(t, blktest.Suite{}, types,
		"0 8192 linear a 3\n8192 8192 linear b 0",
		"0 9000 linear /dev/dm-0 777",
		"0 1001 linear 254:1 5000\n1001 4999 linear /dev/mapper/q 1")
}

func TestRefuses(t *testing.T) {
	targettest.New(t, types).Refuses(`
		0 16 linear => EINVAL Invalid argument count
		0 16 linear a => EINVAL Invalid argument count
		0 16 linear a 0 0 => EINVAL Invalid argument count
		0 16 linear a foo => EINVAL Invalid device sector
		0 16 linear a -1 => EINVAL Invalid device sector
		0 16 linear a +1 => EINVAL Invalid device sector
		0 16 linear a 1x => EINVAL Invalid device sector
		0 16 linear a 0x10 => EINVAL Invalid device sector
		0 16 linear a 1.5 => EINVAL Invalid device sector
		0 16 linear /none 0 => ENODEV Device lookup failed
		0 16 linear /none q => EINVAL Invalid device sector
		0 16 linear a 99999999999999999999 => EINVAL 7:0 too small for target: start=7766279631452241919, len=16, dev_size=16384
		0 16384 linear a 1 => EINVAL 7:0 too small for target: start=1, len=16384, dev_size=16384
	`)
}

func TestText(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 8 linear b 100\n8 8 linear a 50\n16 8 linear b 0")
	r.Lines(d, dm.Info, "0 8 linear \n8 8 linear \n16 8 linear ")
	r.Lines(d, dm.TableText, "0 8 linear 7:1 100\n8 8 linear 7:0 50\n16 8 linear 7:1 0")
	r.Message(d, "hello", "", syscall.EINVAL)
}

// The places are those of the kernel's answers in test/kernel.
func TestPlaces(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 8 linear b 100\n8 8 linear a 50\n16 8 linear b 0")
	r.Write(d, 4, 16, 2)
	r.Want(d, 4, 16, 4, 2)
	r.WantDisk("a", 50, 8, 8, 2)
	r.WantDisk("b", 104, 4, 4, 2)
	r.WantDisk("b", 0, 4, 16, 2)
	r.Gate("a").Forget()
	r.Gate("b").Forget()
	r.Do(d, blk.Discard, 6, 12, 0, blk.OK)
	r.Do(d, blk.WriteZeroes, 15, 2, 0, blk.OK)
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	r.Trace("a", "discard 50+8\nwrite-zeroes 57+1\nflush 50+0\n")
	r.Trace("b", "discard 106+2\ndiscard 0+2\nwrite-zeroes 0+1\nflush 100+0\nflush 0+0\n")
}
