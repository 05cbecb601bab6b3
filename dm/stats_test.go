package dm

import (
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"udm/blk"
	"udm/env"
)

func TestStatAreaFillsCacheLines(t *testing.T) {
	if n := unsafe.Sizeof(areaStats{}); n != areaSize {
		t.Errorf("an area has %d bytes", n)
	}
}

// says sends a message and checks the reply.
func (r *rig) says(d *Device, message, want string) {
	r.t.Helper()
	got, err := d.Message(0, message)
	if err != nil || got != want {
		r.t.Errorf("%s: %q, %v; want %q", message, got, err, want)
	}
}

// refuses sends a message and checks its errno and reason.
func (r *rig) refuses(d *Device, message string, errno syscall.Errno, reason string) {
	r.t.Helper()
	got, err := d.Message(0, message)
	if got != "" || ErrnoOf(err) != errno || reason != "" && err.(*Error).Reason != reason {
		r.t.Errorf("%s: %q, %v; want %v, %s", message, got, err, errno, reason)
	}
}

// The answers are the kernel's in test/kernel.
func TestStatsAnswerAsLinux(t *testing.T) {
	r := newRig(t)
	d := r.device("x", "0 128 shift g0")
	r.gate("g0").Open()
	r.says(d, "@stats_list", "")
	r.says(d, "@stats_create - /1", "0")
	r.says(d, "@stats_create - 32", "1")
	r.says(d, "@stats_create 16+64 /2 prog", "2")
	r.says(d, "@stats_create 0+128 /3 prog aux", "3")
	r.says(d, "@stats_create 10+20 7 1 precise_timestamps", "4")
	r.says(d, "@stats_create - 64 1 histogram:1000000,2000000 hist", "5")
	r.says(d, "@stats_create - 64 2 precise_timestamps histogram:1000000000000 both aux", "6")
	r.says(d, "@stats_list", `0: 0+128 128 - -
1: 0+128 32 - -
2: 16+64 32 prog -
3: 0+128 43 prog aux
4: 10+20 7 - - precise_timestamps
5: 0+128 64 hist - histogram:1000000,2000000
6: 0+128 64 both aux precise_timestamps histogram:1000000000000
`)
	r.says(d, "@stats_list prog", "2: 16+64 32 prog -\n3: 0+128 43 prog aux\n")
	r.says(d, "@stats_list nosuch", "")
	r.says(d, "@stats_print 3", "0+43 0 0 0 0 0 0 0 0 0 0 0 0 0\n43+43 0 0 0 0 0 0 0 0 0 0 0 0 0\n86+43 0 0 0 0 0 0 0 0 0 0 0 0 0\n")

	r.write(d, 0, 16)
	r.submit(d, blk.Read, 0, 8, 16)
	r.submit(d, blk.Read, 0, 24, 24)
	r.write(d, 60, 8)
	r.write(d, 127, 1)
	r.says(d, "@stats_print 0", "0+128 2 0 40 0 3 1 25 0 0 0 0 0 0\n")
	r.says(d, "@stats_print 1", "0+32 2 0 24 0 1 1 16 0 0 0 0 0 0\n32+32 1 0 16 0 1 0 4 0 0 0 0 0 0\n64+32 0 0 0 0 1 0 4 0 0 0 0 0 0\n96+32 0 0 0 0 1 0 1 0 0 0 0 0 0\n")
	r.says(d, "@stats_print 2", "16+32 2 0 32 0 0 0 0 0 0 0 0 0 0\n48+32 0 0 0 0 1 0 8 0 0 0 0 0 0\n")
	r.says(d, "@stats_print 3", "0+43 2 0 35 0 1 1 16 0 0 0 0 0 0\n43+43 1 0 5 0 1 0 8 0 0 0 0 0 0\n86+43 0 0 0 0 1 0 1 0 0 0 0 0 0\n")
	r.says(d, "@stats_print 4", "10+7 1 0 7 0 1 1 6 0 0 0 0 0 0\n17+7 1 0 7 0 0 0 0 0 0 0 0 0 0\n24+7 1 0 6 0 0 0 0 0 0 0 0 0 0\n")
	r.says(d, "@stats_print 5", "0+64 2 0 40 0 2 1 20 0 0 0 0 0 0 4:0:0\n64+64 0 0 0 0 2 0 5 0 0 0 0 0 0 2:0:0\n")
	r.says(d, "@stats_print 6", "0+64 2 0 40 0 2 1 20 0 0 0 0 0 0 4:0\n64+64 0 0 0 0 2 0 5 0 0 0 0 0 0 2:0\n")
	r.says(d, "@stats_print 1 1 2", "32+32 1 0 16 0 1 0 4 0 0 0 0 0 0\n64+32 0 0 0 0 1 0 4 0 0 0 0 0 0\n")
	r.says(d, "@stats_print 1 3 100", "96+32 0 0 0 0 1 0 1 0 0 0 0 0 0\n")
	r.says(d, "@stats_print 2 - -", "16+32 2 0 32 0 0 0 0 0 0 0 0 0 0\n48+32 0 0 0 0 1 0 8 0 0 0 0 0 0\n")
	r.says(d, "@stats_print 1 4 1", "")
	r.says(d, "@stats_print 1 18446744073709551615 18446744073709551615", "")
	r.says(d, "@stats_print_clear 0", "0+128 2 0 40 0 3 1 25 0 0 0 0 0 0\n")
	r.says(d, "@stats_print 0", "0+128 0 0 0 0 0 0 0 0 0 0 0 0 0\n")
	r.says(d, "@stats_clear 5", "")
	r.says(d, "@stats_print 5", "0+64 0 0 0 0 0 0 0 0 0 0 0 0 0 0:0:0\n64+64 0 0 0 0 0 0 0 0 0 0 0 0 0 0:0:0\n")
	r.submit(d, blk.Flush, 0, 0, 0)
	r.says(d, "@stats_print 0", "0+128 0 0 0 0 0 0 0 0 0 0 0 0 0\n")

	r.says(d, "@stats_set_aux 0 newaux", "")
	r.says(d, "@stats_delete 1", "")
	for _, m := range []string{"@stats_delete 1", "@stats_print 1", "@stats_clear 1", "@stats_set_aux 99 x"} {
		r.refuses(d, m, syscall.ENOENT, "")
	}
	r.says(d, "@Stats_create - 16", "1")
	r.says(d, "@stats_list -", "0: 0+128 128 - newaux\n1: 0+128 16 - -\n4: 10+20 7 - - precise_timestamps\n")
	r.says(d, "@stats_create 1000+8 8", "7")
	for id := range 8 {
		r.says(d, "@stats_delete "+string(rune('0'+id)), "")
	}
	if d.stats.Load() != nil {
		t.Error("without regions I/O still looks for them")
	}
}

func TestStatsRefuse(t *testing.T) {
	r := newRig(t)
	d := r.device("x", "0 128 shift g0")
	r.says(d, "@stats_create -  8", "0")
	for _, m := range []string{
		"@stats_create", "@stats_create -", "@stats_create q 8", "@stats_create 0+ 8", "@stats_create 0+q 8", "@stats_create 0-64 8",
		"@stats_create 0+0 8", "@stats_create - 0", "@stats_create - q", "@stats_create - /0", "@stats_create - /q", "@stats_create - 8 1 nosuchoption",
		"@stats_create - 8 2 precise_timestamps", "@stats_create - 8 1 histogram:", "@stats_create - 8 1 histogram:0", "@stats_create - 8 1 histogram:5,5",
		"@stats_create - 8 1 histogram:9,5", "@stats_create - 8 1 histogram:q", "@stats_create - 8 1 histogram:1,", "@stats_create - 8 2 histogram:1 histogram:2",
		"@stats_create - 64 2 precise_timestamps histogram:1000000000000 both aux data", "@stats_create 18446744073709551615+1 8",
		"@stats_delete", "@stats_delete q", "@stats_delete -1", "@stats_delete 2147483648", "@stats_print", "@stats_print 0 1", "@stats_print 0 q 1",
		"@stats_print 0 1 q", "@stats_print 0 1 1 1", "@stats_clear", "@stats_set_aux 0", "@stats_set_aux q x", "@stats_list a b", "@stats_print_clear 0 1",
	} {
		r.refuses(d, m, syscall.EINVAL, "Invalid parameters for message "+strings.Fields(m)[0])
	}
	r.refuses(d, "@stats_nosuch", syscall.EINVAL, "Unsupported message sent to DM core: @stats_nosuch")
	r.refuses(d, "@stats_create 0+1000000000000000 1", syscall.ENOMEM, "")
	r.refuses(d, "@stats_create 0+1000000000000000000 1", syscall.EOVERFLOW, "")
	r.says(d, "@stats_list", "0: 0+128 8 - -\n")
}

// TestStatsTimes holds I/O at the gate while virtual time passes.
func TestStatsTimes(t *testing.T) {
	r := newRig(t)
	d := r.device("x", "0 128 shift g0")
	r.says(d, "@stats_create - 64 1 histogram:5,10,11", "0")
	r.says(d, "@stats_create - 64 2 precise_timestamps histogram:10000000,10000001", "1")
	read := r.submit(d, blk.Read, 0, 2, 4)
	r.sim.Advance(3 * time.Millisecond)
	write := r.write(d, 62, 4)
	r.sim.Advance(7 * time.Millisecond)
	r.says(d, "@stats_print 0", "0+64 0 0 0 0 0 0 0 0 2 10 17 10 7 0:0:0:0\n64+64 0 0 0 0 0 0 0 0 1 7 7 0 7 0:0:0:0\n")
	r.release("g0")
	r.ended(read, blk.OK)
	r.sim.Advance(time.Millisecond / 2)
	r.says(d, "@stats_print_clear 0", "0+64 1 0 4 10 0 0 0 0 1 10 17 10 7 0:0:1:0\n64+64 0 0 0 0 0 0 0 0 1 7 7 0 7 0:0:0:0\n")
	r.sim.Advance(4 * time.Millisecond)
	r.release("g0")
	r.ended(write, blk.OK)
	r.says(d, "@stats_print 0", "0+64 0 0 0 0 1 0 2 11 0 4 4 0 4 0:0:0:1\n64+64 0 0 0 0 1 0 2 11 0 4 4 0 4 0:0:0:1\n")
	r.says(d, "@stats_print 1 0 1", "0+64 1 0 4 10000000 1 0 2 11500000 0 14500000 21500000 10000000 11500000 0:1:1\n")
	r.sim.Advance(time.Second)
	r.says(d, "@stats_print 0 1 1", "64+64 0 0 0 0 1 0 2 11 0 4 4 0 4 0:0:0:1\n")
}

// TestStatsCountPieces: bios that a target cuts, refuses, accepts in part, or gets as
// several clones.
func TestStatsCountPieces(t *testing.T) {
	r := newRig(t)
	r.gate("g0").Open()
	d := r.device("x", "0 64 script g0 8", "64 64 partial g0 5")
	r.says(d, "@stats_create 4+100 50", "0")
	r.write(d, 2, 20)
	r.says(d, "@stats_print 0", "4+50 0 0 0 0 3 0 18 0 0 0 0 0 0\n54+50 0 0 0 0 0 0 0 0 0 0 0 0 0\n")
	r.write(d, 100, 12)
	r.says(d, "@stats_print_clear 0 1 1", "54+50 0 0 0 0 1 0 4 0 0 0 0 0 0\n")
	r.says(d, "@stats_create 64+24 8", "1")
	r.write(d, 64, 20) // in parts of 5
	r.says(d, "@stats_print 1", "64+8 0 0 0 0 2 0 8 0 0 0 0 0 0\n72+8 0 0 0 0 3 0 8 0 0 0 0 0 0\n80+8 0 0 0 0 1 0 4 0 0 0 0 0 0\n")
	r.says(d, "@stats_delete 1", "")
	r.says(d, "@stats_clear 0", "")
	r.ended(r.submit(d, blk.Discard, 0, 60, 8), blk.NotSupported) // of the second target
	r.says(d, "@stats_print_clear 0 1 1", "54+50 0 0 0 0 1 0 4 0 0 0 0 0 0\n")
	s := d.Target(0).Mapper().(*scripted)
	s.plan = func(*Clone) Outcome { return Kill }
	r.ended(r.write(d, 8, 4), blk.IOErr)
	s.plan = func(*Clone) Outcome { return Requeue }
	r.ended(r.write(d, 8, 4), blk.IOErr)
	s.plan = func(c *Clone) Outcome { c.Complete(blk.IOErr); return Submitted }
	r.ended(r.write(d, 8, 4), blk.IOErr)
	r.says(d, "@stats_print 0 0 1", "4+50 0 0 0 0 1 0 4 0 0 0 0 0 0\n")
	r.says(d, "@stats_list", "0: 4+100 50 - -\n")
}

// TestStatsWithConcurrentIO: counts are exact although regions come and go.
func TestStatsWithConcurrentIO(t *testing.T) {
	c := NewControl(env.Real(), anyNull{}, shiftType)
	d, err := c.Create("d", "", -1)
	if err == nil {
		err = d.Load([]Spec{{0, 1 << 20, "shift", "null"}}, Mode{Write: true})
	}
	if err == nil {
		err = d.Resume(ctx, false)
	}
	if err != nil {
		t.Fatal(err)
	}
	const users, ios = 4, 500
	if _, err := d.Message(0, "@stats_create 0+4096 /2"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for u := range users {
		wg.Go(func() {
			for i := range uint64(ios) {
				wg.Add(1)
				b := &blk.Bio{Op: blk.Op(u % 2), Sector: 2044 + i%8, End: func(*blk.Bio) { wg.Done() }}
				b.SetData(make([]byte, 8*blk.SectorSize))
				d.Submit(b)
			}
		})
	}
	wg.Go(func() {
		for range 20 {
			id, err := d.Message(0, "@stats_create - 1000")
			if err == nil {
				_, err = d.Message(0, "@stats_delete "+id)
			}
			if err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	got, _ := d.Message(0, "@stats_print 0")
	f := strings.Fields(got)
	// Of 500 I/Os of a user 252 begin in the first area; all end in the second.
	for i, want := range map[int]string{1: "504", 3: "1260", 5: "504", 9: "0", 15: "1000", 17: "6740", 19: "1000", 23: "0"} {
		if f[i] != want {
			t.Errorf("word %d is not %s:\n%s", i, want, got)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
