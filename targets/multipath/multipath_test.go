package multipath_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
	errortarget "udm/targets/error"
	"udm/targets/internal/targettest"
	"udm/targets/linear"
	"udm/targets/multipath"
)

var types = []*dm.Type{multipath.Type(), linear.Type(), errortarget.Type()}

func TestConforms(t *testing.T) {
	targettest.Conforms(t, blktest.Suite{}, types, "0 4096 multipath 2 queue_mode bio 0 1 1 round-robin 0 2 0 a a")
}

func TestConformsThreeDeep(t *testing.T) {
	targettest.Conforms(t, blktest.Suite{}, types, "0 5000 linear a 7", "0 5000 multipath 0 0 2 2 queue-length 0 1 0 /dev/dm-0 historical-service-time 0 2 0 /dev/dm-0 /dev/dm-0", "0 4096 multipath 0 0 1 1 service-time 0 2 0 /dev/dm-1 /dev/dm-1")
}

func TestRefuses(t *testing.T) {
	targettest.New(t, types).Refuses(`
		0 64 multipath => EINVAL invalid number of feature args
		0 64 multipath 9 a b c d e f g h i => EINVAL invalid number of feature args
		0 64 multipath 11 polling_interval b c d e f g h i j k => EINVAL invalid number of feature args
		0 64 multipath 2 queue_if_no_path => EINVAL invalid number of feature args
		0 64 multipath 1 hello 0 0 0 => EINVAL Unrecognised multipath feature request
		0 64 multipath 1 pg_init_retries 0 0 0 => EINVAL Unrecognised multipath feature request
		0 64 multipath 2 hello 5 0 0 0 => EINVAL Unrecognised multipath feature request
		0 64 multipath 2 pg_init_retries 51 0 0 0 => EINVAL pg_init_retries must be between 1 and 50
		0 64 multipath 2 pg_init_delay_msecs 60001 0 0 0 => EINVAL pg_init_delay_msecs must be between 0 and 60000
		0 64 multipath 2 polling_interval 0 0 0 0 => EINVAL polling_interval must be between 1 and 3600
		0 64 multipath 2 queue_mode x 0 0 0 => EINVAL Unknown 'queue_mode' requested
		0 64 multipath 0 => EINVAL invalid number of hardware handler args
		0 64 multipath 0 1 => EINVAL invalid number of hardware handler args
		0 64 multipath 0 2 alua fast 0 0 => EINVAL hardware handlers are not supported; write 0 in place of 2 alua fast
		0 64 multipath 0 0 => EINVAL invalid number of priority groups
		0 64 multipath 0 0 1 => EINVAL invalid initial priority group number
		0 64 multipath 0 0 1 0 round-robin 0 1 0 a => EINVAL invalid initial priority group
		0 64 multipath 0 0 0 1 => EINVAL invalid initial priority group
		0 64 multipath 0 0 1 1 => EINVAL priority group count mismatch
		0 64 multipath 0 0 2 1 round-robin 0 1 0 a => EINVAL priority group count mismatch
		0 64 multipath 0 0 1 1 round-robin 0 1 0 a b => EINVAL not enough priority group arguments
		0 64 multipath 0 0 1 1 nearest 0 1 0 a => EINVAL unknown path selector type
		0 64 multipath 0 0 1 1 io-affinity 0 1 1 a 3 => EINVAL unknown path selector type
		0 64 multipath 0 0 1 1 round-robin 9 1 0 a => EINVAL invalid number of path selector args
		0 64 multipath 0 0 1 1 round-robin 0 0 0 a => EINVAL invalid number of paths
		0 64 multipath 0 0 1 1 round-robin 0 1 q a => EINVAL invalid number of selector args
		0 64 multipath 0 0 1 1 round-robin 0 2 0 a => EINVAL not enough path parameters
		0 64 multipath 0 0 1 1 round-robin 0 1 1 a q => EINVAL round-robin ps: invalid repeat count
		0 64 multipath 0 0 1 1 round-robin 0 1 2 a 1 1 => EINVAL round-robin ps: incorrect number of arguments
		0 64 multipath 0 0 1 1 queue-length 0 1 1 a q => EINVAL queue-length ps: invalid repeat count
		0 64 multipath 0 0 1 1 service-time 0 1 2 a 1 101 => EINVAL service-time ps: invalid relative_throughput value
		0 64 multipath 0 0 1 1 service-time 0 1 3 a 1 1 1 => EINVAL service-time ps: incorrect number of arguments
		0 64 multipath 0 0 1 1 historical-service-time 1 1024 1 0 a => EINVAL path selector constructor failed
		0 64 multipath 0 0 1 1 historical-service-time 2 1 q 1 0 a => EINVAL path selector constructor failed
		0 64 multipath 0 0 1 1 historical-service-time 3 1 1 1 1 0 a => EINVAL path selector constructor failed
		0 64 multipath 0 0 1 1 round-robin 0 1 0 /none => ENODEV error getting device
		0 64 multipath 0 0 1 1 round-robin 0 1 1 /none q => ENODEV error getting device
		0 64 multipath 0 0 1 1 round-robin 0 2 1 a q /none 1 => EINVAL round-robin ps: invalid repeat count
		0 16385 multipath 0 0 1 1 round-robin 0 1 0 a => EINVAL 7:0 too small for target: start=0, len=16385, dev_size=16384
	`)
}

// table is a table with features and groups; each word is a group of paths that take turns.
func table(features string, groups ...string) string {
	t := fmt.Sprintf("0 64 multipath %d %s 0 %d 1", len(strings.Fields(features)), features, len(groups))
	for _, g := range groups {
		t += fmt.Sprintf(" round-robin 0 %d 0", len(g))
		for _, disk := range g {
			t += " " + string(disk)
		}
	}
	return t
}

// state checks a status behind its first words.
func state(r *targettest.Rig, d *dm.Device, want string) {
	r.Helper()
	r.Lines(d, dm.Info, "0 64 multipath 2 0 0 0 "+want+" ")
}

func TestText(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 64 multipath 10 Queue_If_No_Path pg_init_retries 3 pg_init_delay_msecs 0 QUEUE_mode bio polling_interval 7 retain_attached_hw_handler 2 alua x 2 2 round-robin 1 x 1 0 a historical-service-time 1 900 2 1 b 7 c 0")
	r.Lines(d, dm.TableText, "0 64 multipath 10 queue_if_no_path pg_init_retries 3 pg_init_delay_msecs 0 retain_attached_hw_handler queue_mode bio polling_interval 7 0 2 2 round-robin 0 1 1 7:0 1 historical-service-time 2 900 0 2 1 7:1 0 7:2 0 ")
	r.Lines(d, dm.Info, "0 64 multipath 2 1 0 0 2 2 E 0 1 0 7:0 A 0 E 2 900 0 2 3 7:1 A 0 1024 0 0 7:2 A 0 1024 0 0 ")
	r.Swap(d, "0 64 multipath 2 queue_mode mq 0 2 5 queue-length 0 1 0 a service-time 0 2 2 b 0 100 c 9 0")
	r.Lines(d, dm.TableText, "0 64 multipath 0 0 2 1 queue-length 0 1 1 7:0 1 service-time 0 2 2 7:1 0 100 7:2 1 0 ")
	r.Lines(d, dm.Info, "0 64 multipath 2 1 0 0 2 1 E 0 1 1 7:0 A 0 0 E 0 2 2 7:1 A 0 0 100 7:2 A 0 0 0 ")
	r.Write(d, 0, 8, 1)
	r.Lines(d, dm.Info, "0 64 multipath 2 0 0 0 2 1 A 0 1 1 7:0 A 0 0 E 0 2 2 7:1 A 0 0 100 7:2 A 0 0 0 ")
}

func TestMessages(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", table("queue_if_no_path", "a", "bb"))
	for text, errno := range map[string]syscall.Errno{
		"hello": syscall.EINVAL, "hello x": syscall.EINVAL, "fail_path": syscall.EINVAL, "fail_path c": syscall.EINVAL, "fail_path /none": syscall.ENODEV, "fail_path a b": syscall.EINVAL,
		"switch_group 0": syscall.EINVAL, "switch_group 3": syscall.EINVAL, "enable_group q": syscall.EINVAL, "disable_group 4294967297": 0, "queue_if_no_path 1": syscall.EINVAL,
	} {
		r.Message(d, text, "", errno)
	}
	events := d.Status().EventNr
	r.Message(d, "FAIL_path b", "", 0)
	r.Lines(d, dm.Info, "0 64 multipath 2 1 0 0 2 1 D 0 1 0 7:0 A 0 E 0 2 0 7:1 F 1 7:1 F 1 ")
	r.Message(d, "fail_path 7:1", "", 0)
	if n := d.Status().EventNr; n != events+2 {
		t.Errorf("%d events", n-events)
	}
	r.Suspend(d, false)
	for _, text := range []string{"reinstate_path b", "fail_if_no_path", "queue_if_no_path", "switch_group 1"} {
		r.Message(d, text, "", syscall.EBUSY)
	}
	r.Lines(d, dm.TableText, "0 64 multipath 0 0 2 1 round-robin 0 1 1 7:0 1 round-robin 0 2 1 7:1 1 7:1 1 ")
	r.Resume(d)
	r.Lines(d, dm.TableText, "0 64 multipath 1 queue_if_no_path 0 2 1 round-robin 0 1 1 7:0 1 round-robin 0 2 1 7:1 1 7:1 1 ")
}

// TestFailover: an I/O that fails because of its path goes on by another, of the same group
// if there is one.
func TestFailover(t *testing.T) {
	for _, st := range []blk.Status{blk.IOErr, blk.Timeout, blk.Offline} {
		r := targettest.New(t, types)
		d := r.Device("x", table("", "ab", "c"))
		events := d.Status().EventNr
		fail := func(name string) {
			g := r.Gate(name)
			g.Fail(g.Held()[0].Index, st)
			r.Sim.Run()
		}
		for _, name := range []string{"a", "b", "c"} {
			r.Gate(name).Shut()
		}
		x := r.Submit(d, blk.Write, blk.FUA, 8, 8, 5)
		fail("a")
		state(r, d, "2 1 A 0 2 0 7:0 F 1 7:1 A 0 E 0 1 0 7:2 A 0")
		fail("b")
		r.Held(x)
		state(r, d, "2 2 E 0 2 0 7:0 F 1 7:1 F 1 A 0 1 0 7:2 A 0")
		r.Gate("c").ReleaseAll()
		r.Done(x, blk.OK)
		r.WantDisk("c", 8, 8, 8, 5)
		for _, name := range []string{"a", "b", "c"} {
			r.Trace(name, "write 8+8 fua\n")
		}
		if n := d.Status().EventNr; n != events+2 {
			t.Errorf("%d events", n-events)
		}
		x = r.Submit(d, blk.Flush, 0, 0, 0, 0)
		fail("c")
		r.Done(x, blk.IOErr)
		r.Do(d, blk.Read, 0, 8, 0, blk.IOErr)
		state(r, d, "2 1 E 0 2 0 7:0 F 1 7:1 F 1 E 0 1 0 7:2 F 1")
		r.Message(d, "reinstate_path a", "", 0)
		r.Gate("a").Open()
		r.Write(d, 0, 8, 6)
		state(r, d, "2 1 A 0 2 0 7:0 A 1 7:1 F 1 E 0 1 0 7:2 F 1")
	}
}

// TestOtherErrors: another path would not do better.
func TestOtherErrors(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", table("queue_if_no_path", "ab"))
	g := r.Gate("a")
	for st, want := range map[blk.Status]blk.Status{
		blk.NotSupported: blk.NotSupported, blk.NoSpace: blk.NoSpace, blk.Invalid: blk.Invalid, blk.ReadOnly: blk.ReadOnly, blk.WouldBlock: blk.WouldBlock, blk.Target: blk.NotSupported,
	} {
		g.Shut()
		x := r.Submit(d, blk.Write, 0, 0, 8, 5)
		g.Fail(g.Held()[0].Index, st)
		r.Sim.Run()
		r.Done(x, want)
		g.Open()
		r.Write(d, 0, 8, 6) // the turn of b
	}
	state(r, d, "1 1 A 0 2 0 7:0 A 0 7:1 A 0")
}

// TestWholeAgain: a path that has changed a bio before it failed leaves it whole.
func TestWholeAgain(t *testing.T) {
	r := targettest.New(t, types)
	r.Device("half", "0 12 linear a 0\n12 52 error")
	d := r.Device("x", "0 64 multipath 0 0 2 1 round-robin 0 1 0 /dev/mapper/half round-robin 0 1 0 b")
	r.Write(d, 8, 8, 5)
	r.WantDisk("b", 8, 8, 8, 5)
	r.Message(d, "reinstate_path /dev/mapper/half", "", 0)
	r.Message(d, "switch_group 1", "", 0)
	r.Want(d, 8, 8, 8, 5)
}

// TestNoPath: what becomes of I/O.
func TestNoPath(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", table("queue_if_no_path", "a"))
	r.Message(d, "fail_path a", "", 0)
	w := r.Submit(d, blk.Write, 0, 0, 8, 5)
	f := r.Submit(d, blk.Flush, 0, 0, 0, 0)
	r.Held(w)
	r.Held(f)
	r.Done(r.Submit(d, blk.Read, blk.NoWait, 0, 8, 0), blk.WouldBlock)
	r.Message(d, "reinstate_path a", "", 0)
	r.Sim.Run()
	r.Done(w, blk.OK)
	r.Done(f, blk.OK)
	r.Message(d, "fail_path a", "", 0)
	w = r.Submit(d, blk.Write, 0, 0, 8, 6)
	r.Message(d, "fail_if_no_path", "", 0)
	r.Sim.Run()
	r.Done(w, blk.IOErr)
	r.Do(d, blk.Write, 0, 8, 6, blk.IOErr)

	r.Message(d, "queue_if_no_path", "", 0)
	w = r.Submit(d, blk.Write, 0, 0, 8, 7)
	r.Suspend(d, false)
	r.Done(w, blk.IOErr)
	r.Resume(d)
	w = r.Submit(d, blk.Write, 0, 0, 8, 8)
	r.Held(w)
	r.Suspend(d, true)
	r.Held(w)
	r.Swap(d, table("", "b"))
	r.Sim.Run()
	r.Done(w, blk.OK)
	r.WantDisk("b", 0, 8, 0, 8)
	r.WantDisk("a", 0, 8, 0, 5)
}

// TestSuspendWhileAPathFails: an I/O in flight does not wait for a path during a suspend.
func TestSuspendWhileAPathFails(t *testing.T) {
	for _, noflush := range []bool{false, true} {
		r := targettest.New(t, types)
		d := r.Device("x", table("queue_if_no_path", "a"))
		g := r.Gate("a")
		g.Shut()
		w := r.Submit(d, blk.Write, 0, 0, 8, 5)
		done := false
		r.Sim.Go("suspend", func() { r.Suspend(d, noflush); done = true })
		r.Sim.Run()
		g.Fail(g.Held()[0].Index, blk.IOErr)
		r.Sim.Run()
		if !done {
			t.Fatal("the suspend waits for a path")
		}
		g.Open()
		if !noflush {
			r.Done(w, blk.IOErr)
		}
		r.Resume(d)
		if noflush {
			r.Held(w)
			r.Message(d, "reinstate_path a", "", 0)
			r.Sim.Run()
			r.Done(w, blk.OK)
		}
	}
}

// TestPolling: failed paths are tested, and used again when a test succeeds; but not those
// that a message has failed, nor while the device is suspended.
func TestPolling(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", table("polling_interval 5 queue_if_no_path", "a", "b", "c"))
	r.Message(d, "fail_path c", "", 0)
	for _, name := range []string{"a", "b"} {
		r.Gate(name).Shut()
	}
	x := r.Submit(d, blk.Write, 0, 0, 8, 5)
	failAll(r, "a")
	failAll(r, "b")
	r.Held(x)
	r.Sim.Advance(5*time.Second - 1)
	r.Trace("a", "")
	r.Sim.Advance(1)
	r.Trace("a", "read 0+1\n")
	r.Sim.Advance(20 * time.Second)
	r.Trace("a", "read 0+1\n") // it has not ended
	failAll(r, "a")
	r.Sim.Advance(5 * time.Second)
	r.Trace("a", "read 0+1\n")
	state(r, d, "3 1 E 0 1 0 7:0 F 1 E 0 1 0 7:1 F 1 E 0 1 0 7:2 F 1")
	r.Gate("b").Open()
	r.Sim.Run()
	r.Done(x, blk.OK)
	state(r, d, "3 2 E 0 1 0 7:0 F 1 A 0 1 0 7:1 A 1 E 0 1 0 7:2 F 1")
	r.Suspend(d, false)
	failAll(r, "a")
	r.Sim.Advance(time.Minute)
	r.Trace("a", "")
	r.Resume(d)
	r.Sim.Advance(5 * time.Second)
	r.Trace("a", "read 0+1\n")
	r.Gate("a").Open()
	r.Sim.Run()
	state(r, d, "3 2 E 0 1 0 7:0 A 1 A 0 1 0 7:1 A 1 E 0 1 0 7:2 F 1")
	r.Sim.Advance(5 * time.Second)
	if n := r.Sim.Pending(); n != 0 {
		t.Errorf("%d timers are armed although there is nothing to test", n)
	}
}

func failAll(r *targettest.Rig, name string) {
	for _, x := range r.Gate(name).Held() {
		r.Gate(name).Fail(x.Index, blk.IOErr)
	}
	r.Gate(name).Forget()
	r.Sim.Run()
}

// TestCloseAwaitsTests: a table is not closed below a test.
func TestCloseAwaitsTests(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", table("polling_interval 1", "a", "b"))
	r.Gate("a").Shut()
	r.Submit(d, blk.Read, 0, 0, 8, 0)
	failAll(r, "a")
	r.Sim.Advance(time.Second)
	done := false
	r.Sim.Go("swap", func() { r.Swap(d, table("", "b")); done = true })
	r.Sim.Run()
	if done {
		t.Error("the table was closed")
	}
	r.Gate("a").Open()
	r.Sim.Run()
	if !done {
		t.Error("the table is not closed")
	}
}

// TestExpiry: I/O waits for a path as long as the parameter allows.
func TestExpiry(t *testing.T) {
	ty := multipath.Type()
	ty.Params[0].Set(30)
	r := targettest.New(t, []*dm.Type{ty})
	d := r.Device("x", table("queue_if_no_path", "ab"))
	r.Message(d, "fail_path a", "", 0)
	r.Sim.Advance(time.Minute)
	r.Message(d, "fail_path b", "", 0)
	x := r.Submit(d, blk.Write, 0, 0, 8, 5)
	r.Sim.Advance(29 * time.Second)
	r.Message(d, "reinstate_path b", "", 0)
	r.Sim.Run()
	r.Done(x, blk.OK)
	r.Sim.Advance(time.Minute)
	r.Message(d, "fail_path b", "", 0)
	x = r.Submit(d, blk.Write, 0, 0, 8, 6)
	r.Sim.Advance(30*time.Second - 1)
	r.Held(x)
	r.Sim.Advance(1)
	r.Done(x, blk.IOErr)
	r.Lines(d, dm.TableText, "0 64 multipath 0 0 1 1 round-robin 0 2 1 7:0 1 7:1 1 ")
}

// Extents are those of a path that works.
func TestExtents(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", table("", "a", "b"))
	data := func() int {
		list, err := d.Extents(0, 64)
		r.Must(err)
		n := 0
		for _, e := range list {
			if e.Data {
				n += int(e.Sectors)
			}
		}
		return n
	}
	if n := data(); n != 0 {
		t.Errorf("%d sectors of an empty disk have data", n)
	}
	r.Message(d, "fail_path a", "", 0)
	if n := data(); n != 0 {
		t.Errorf("%d sectors of an empty disk have data", n)
	}
	r.Message(d, "fail_path b", "", 0)
	if n := data(); n != 64 {
		t.Errorf("%d sectors have data where nobody knows", n)
	}
}
