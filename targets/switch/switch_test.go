package switchtarget_test

import (
	"syscall"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
	"udm/targets/internal/targettest"
	"udm/targets/linear"
	switchtarget "udm/targets/switch"
)

var types = []*dm.Type{switchtarget.Type(), linear.Type()}

func TestConforms(t *testing.T) {
	targettest.Conforms(t, blktest.Suite{}, types, "0 8192 switch 3 13 0 a 0 b 7 c 1")
}

func TestConformsThreeDeep(t *testing.T) {
	targettest.Conforms(t, blktest.Suite{}, types, "0 8192 switch 2 64 0 a 0 b 0", "0 8000 linear /dev/dm-0 100", "0 6000 switch 2 7 0 /dev/dm-1 0 c 1000")
}

func TestRefuses(t *testing.T) {
	targettest.New(t, types).Refuses(`
		0 64 switch => EINVAL Invalid number of paths
		0 64 switch 2 => EINVAL Invalid region size
		0 64 switch 2 8 => EINVAL Invalid number of optional args
		0 64 switch 0 8 0 => EINVAL Invalid number of paths
		0 64 switch q 8 0 a 0 => EINVAL Invalid number of paths
		0 64 switch 2 0 0 a 0 b 0 => EINVAL Invalid region size
		0 64 switch 2 q 0 a 0 b 0 => EINVAL Invalid region size
		0 64 switch 2 8 1 a 0 b 0 => EINVAL Invalid number of optional args
		0 64 switch 2 8 q a 0 b 0 => EINVAL Invalid number of optional args
		0 64 switch 2 8 0 a 0 => EINVAL Incorrect number of path arguments
		0 64 switch 2 8 0 a 0 b 0 5 => EINVAL Incorrect number of path arguments
		0 64 switch 2 8 0 a q b 0 => EINVAL Invalid device starting offset
		0 64 switch 2 8 0 a 0 b 99999999999999999999 => EINVAL Invalid device starting offset
		0 64 switch 2 8 0 a 0 /none 0 => ENODEV Device lookup failed
		0 18014398509481983 switch 2 1 0 a 0 b 0 => ENOMEM Cannot allocate region table
		0 64 switch 1 8 0 a 16380 => EINVAL 7:0 too small for target: start=16380, len=64, dev_size=16384
	`)
}

// where writes each region and checks which path it went down: "0120…".
func where(r *targettest.Rig, d *dm.Device, want string) {
	r.Helper()
	for _, disk := range []string{"a", "b", "c"} {
		r.Gate(disk).Forget()
	}
	got := ""
	for i := range uint64(len(want)) {
		r.Write(d, i*7, 1, 1)
		for p, disk := range []string{"a", "b", "c"} {
			if r.Gate(disk).Trace() != "" {
				got += string(rune('0' + p))
			}
			r.Gate(disk).Forget()
		}
	}
	if got != want {
		r.Errorf("regions go down paths %s, want %s", got, want)
	}
}

func TestRegions(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 60 switch 3 7 0 a 0 b 8 c 0")
	r.Lines(d, dm.TableText, "0 60 switch 3 7 0 7:0 0 7:1 8 7:2 0")
	r.Lines(d, dm.Info, "0 60 switch ")
	where(r, d, "012012012")
	set := func(items string) { r.Message(d, "set_region_mappings "+items, "", 0) }
	set("")
	set(":1")
	where(r, d, "012012012")
	set("0:2 :2 :0 R3,4")
	where(r, d, "220220212")
	set("8:1 r1,0")
	set("0:1 R1,8")
	where(r, d, "111111111")
	set("0:0 :2 R2,6")
	where(r, d, "020202021")
	r.Message(d, "SET_REGION_MAPPINGS 3:1 00005:1", "", 0)
	where(r, d, "020101021")
}

func TestWrongMessages(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 64 switch 3 8 0 a 0 b 0 c 0")
	for _, c := range [][2]string{
		{"hello", "Unrecognised message received."},
		{"set_region_mappings R,1", "invalid set_region_mappings argument: 'R,1'"},
		{"set_region_mappings R1", "invalid set_region_mappings argument: 'R1'"},
		{"set_region_mappings R1,", "invalid set_region_mappings argument: 'R1,'"},
		{"set_region_mappings R1,2x", "invalid set_region_mappings argument: 'R1,2x'"},
		{"set_region_mappings R0,1", "invalid set_region_mappings cycle length: 18446744073709551615 > 0"},
		{"set_region_mappings 2:1 R4,1", "invalid set_region_mappings cycle length: 3 > 2"},
		{"set_region_mappings R1,8", "invalid set_region_mappings region number: 0 + 8 >= 8"},
		{"set_region_mappings R1,ffffffffffffffff", "invalid set_region_mappings region number: 0 + 18446744073709551615 >= 8"},
		{"set_region_mappings 2:1 R1,ffffffffffffffff", "invalid set_region_mappings region number: 2 + 18446744073709551615 >= 8"},
		{"set_region_mappings 8:1", "invalid set_region_mappings region number: 8 >= 8"},
		{"set_region_mappings A:1", "invalid set_region_mappings region number: 10 >= 8"},
		{"set_region_mappings 1:3", "invalid set_region_mappings device: 3 >= 3"},
		{"set_region_mappings 1", "invalid set_region_mappings argument: '1'"},
		{"set_region_mappings 1:", "invalid set_region_mappings argument: '1:'"},
		{"set_region_mappings 1:1x", "invalid set_region_mappings argument: '1:1x'"},
		{"set_region_mappings 0:2 g:0", "invalid set_region_mappings argument: 'g:0'"},
	} {
		_, err := d.Message(0, c[0])
		if e, ok := err.(*dm.Error); !ok || e.Errno != syscall.EINVAL || e.Reason != c[1] {
			t.Errorf("%s: %v", c[0], err)
		}
	}
	r.Write(d, 0, 8, 1)
	r.Trace("c", "write 0+8\n") // what stood before the wrong item holds
}

func TestFlushAndDiscard(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 64 switch 2 8 0 a 0 b 5")
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	r.Do(d, blk.Discard, 8, 20, 0, blk.OK)
	r.Trace("a", "flush 0+0\n")
	r.Trace("b", "flush 5+0\ndiscard 13+20\n")
}
