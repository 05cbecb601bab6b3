//go:build ceph

package ceph

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"udm"
	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/checkdev"
	"udm/blk/leaf"
	"udm/blk/rbddev"
	"udm/env"
)

// open opens POOL/IMAGE[@SNAP].
func open(name string, write bool) (*rbddev.Device, error) {
	o, err := rbddev.Parse(name)
	if err != nil {
		return nil, err
	}
	id, err := rbddev.Find(o)
	if err != nil {
		return nil, err
	}
	return rbddev.Open(env.Real(), o, id, write)
}

func mustOpen(t testing.TB, name string, write bool) *rbddev.Device {
	t.Helper()
	d, err := open(name, write)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func checked(d blk.Device) *checkdev.Device { return checkdev.New(d, checkdev.Options{Preflush: true}) }

func mustClose(t testing.TB, d blk.Device) {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// until waits for something that the cluster does and tells nobody.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal(what, " has not happened")
		}
	}
}

func TestConformance(t *testing.T) {
	blktest.TestDevice(t, func(t *testing.T) blk.Device { return mustOpen(t, newImage(t, "8M"), true) })
}

// A pool whose metadata and data are images: what was written is there, also after it has
// been closed and opened again.
func TestPoolOnImages(t *testing.T) {
	blktest.Leaks(t)
	meta, data := newImage(t, "8M"), newImage(t, "64M")
	const sectors = 65536
	openPool := func(first bool) (*udm.Stack, *udm.Device) {
		s := udm.New()
		pool, err := s.Create("pool", "0 131072 thin-pool rbd:"+meta+" rbd:"+data+" 128 0")
		if err == nil && first {
			_, err = pool.Message("create_thin 0")
		}
		var d *udm.Device
		if err == nil {
			d, err = s.Create("disk", "0 65536 thin /dev/mapper/pool 0")
		}
		if err != nil {
			t.Fatal(err)
		}
		return s, d
	}
	s, d := openPool(true)
	l := blktest.StartLoad(t, checked(d.Mapped()), sectors, false)
	l.More(2000)
	l.Stop()
	if err := errors.Join(d.Sync(), s.Close()); err != nil {
		t.Fatal(err)
	}
	s, d = openPool(false)
	l.D = d.Mapped()
	l.Read(0, sectors)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// While the OSD does nothing, requests wait, and the report says so; then they go on.
func TestStoppedOSD(t *testing.T) {
	blktest.Leaks(t)
	d := mustOpen(t, newImage(t, "16M"), true)
	l := blktest.StartLoad(t, checked(d), 32768, false)
	l.More(100)
	if err := ceph.osd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	until(t, "waiting", func() bool { return d.Report().State == "waiting" })
	if err := ceph.osd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	l.More(200)
	if r := d.Report(); r.State != "connected" {
		t.Errorf("%+v", r)
	}
	l.Stop()
	mustClose(t, d)
}

// With Ceph's limit of time a request fails, and the device is of use again afterwards.
func TestTimeout(t *testing.T) {
	blktest.Leaks(t)
	d := mustOpen(t, newImage(t, "16M")+":rados_osd_op_timeout=1", true)
	if err := ceph.osd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	err := blk.WriteSectors(env.Real(), d, blktest.Pattern(0, 8, 1), 0, 0)
	if err := ceph.osd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, blk.Timeout) {
		t.Errorf("a write to a stopped OSD: %v", err)
	}
	until(t, "a write", func() bool { return blk.WriteSectors(env.Real(), d, blktest.Pattern(0, 8, 2), 0, 0) == nil })
	p := make([]byte, 8*blk.SectorSize)
	if err := blk.ReadSectors(env.Real(), d, p, 0); err != nil || blktest.Check(p, 0, 2) != nil {
		t.Error(err, blktest.Check(p, 0, 2))
	}
	mustClose(t, d)
}

// A client that is blocklisted is offline for good, whatever it is asked, also if it asks
// nothing; what was acknowledged is there for who opens the image next.
func TestBlocklisted(t *testing.T) {
	blktest.Leaks(t)
	busy, idle := newImage(t, "16M"), newImage(t, "16M")
	d, quiet := mustOpen(t, busy, true), mustOpen(t, idle, true)
	l := blktest.StartLoad(t, checked(d), 32768, true)
	l.More(100)
	for _, image := range []string{busy, idle} {
		if err := run("ceph", "osd", "blocklist", "add", holder(t, image)); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []*rbddev.Device{d, quiet} {
		until(t, "blocklisted", func() bool { return d.Report().State == "blocklisted" })
	}
	l.Stop()
	for _, op := range []blk.Op{blk.Read, blk.Write, blk.Flush, blk.Discard, blk.WriteZeroes} {
		b := &blk.Bio{Op: op}
		if b.SetData(make([]byte, 512)); op == blk.Flush {
			b.Sectors = 0
		}
		if st := blk.Do(env.Real(), d, b); st != blk.Offline {
			t.Errorf("%v: %v", op, st)
		}
	}
	mustClose(t, d)
	mustClose(t, quiet)
	d = mustOpen(t, busy, true)
	l.D = d
	l.Read(0, l.M.Sectors())
	mustClose(t, d)
}

// The daemon hands an image over to its successor, says when it is blocklisted, and can open
// the image again.
func TestDaemon(t *testing.T) {
	image := newImage(t, "16M")
	r := newRig(t, image)
	r.sh(`udm create disk --table "0 32768 linear rbd:$IMAGE 0"
		udm status disk | grep -q 'connected, 1 connections'
		io disk -c 'write -P 7 0 1M'
		udm daemon --replace
		udm status disk | grep -q 'connected, 1 connections'
		io disk -c 'read -P 7 0 1M' -c 'write -P 8 1M 1M'`)
	if err := run("ceph", "osd", "blocklist", "add", holder(t, image)); err != nil {
		t.Fatal(err)
	}
	r.sh(`while io disk -c 'write -P 9 0 4k'; do :; done
		udm status disk | grep 'blocklisted, 0 connections.*another one took the image over'
		! io disk -c 'read 0 4k'
		udm remove disk
		udm create disk --table "0 32768 linear rbd:$IMAGE 0"
		io disk -c 'read -P 8 1M 1M' -c 'write -P 9 0 4k'
		udm remove disk`)
}

// The lock of a client that has died can be had once Ceph has noticed.
func TestDeadHolder(t *testing.T) {
	image := newImage(t, "16M")
	c := exec.Command("rbd", "bench", "--io-type", "write", "--io-size", "4K", "--io-total", "1G", image)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, "a lock", func() bool { return strings.Contains(rbd(t, "lock", "ls", image), "client.") })
	_ = c.Process.Kill()
	_ = c.Wait()
	d := mustOpen(t, image, true)
	if err := blk.WriteSectors(env.Real(), d, blktest.Pattern(0, 8, 1), 0, 0); err != nil {
		t.Error(err)
	}
	mustClose(t, d)
}

// Opening gives up when the OSD says nothing.
func TestOpenWithoutAnswer(t *testing.T) {
	image := newImage(t, "16M")
	if err := ceph.osd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	_, err := open(image, true)
	if err := ceph.osd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("%v", err)
	}
	mustClose(t, mustOpen(t, image, true))
}

// Breaking the lock gives the image to the breaker alone.
func TestBrokenLock(t *testing.T) {
	blktest.Leaks(t)
	image := newImage(t, "16M")
	d := mustOpen(t, image, true)
	l := blktest.StartLoad(t, checked(d), 32768, true)
	l.More(100)
	words := strings.Fields(strings.Split(rbd(t, "lock", "ls", image), "\n")[2])
	rbd(t, "lock", "rm", image, strings.Join(words[1:len(words)-1], " "), words[0])
	until(t, "offline", func() bool { return d.Report().Connections == 0 })
	l.Stop()
	second := mustOpen(t, image, true)
	l.D = second
	l.Read(0, l.M.Sectors())
	mustClose(t, second)
	mustClose(t, d)
}

// The lock keeps others out, and the error says whom to ask.
func TestSecondOpener(t *testing.T) {
	blktest.Leaks(t)
	image := newImage(t, "16M")
	d := mustOpen(t, image, true)
	if _, err := open(image, true); !errors.Is(err, syscall.EBUSY) || !strings.Contains(err.Error(), holder(t, image)) || strings.Contains(err.Error(), "\n") {
		t.Errorf("a second one: %v", err)
	}
	if err := run("rbd", "bench", "--io-type", "write", "--io-size", "4K", "--io-total", "4K", image); err == nil {
		t.Error("rbd bench writes to it as well")
	}
	reader := mustOpen(t, image, false)
	if err := blk.WriteSectors(env.Real(), d, blktest.Pattern(0, 8, 1), 0, 0); err != nil {
		t.Error(err)
	}
	p := make([]byte, 8*blk.SectorSize)
	if err := blk.ReadSectors(env.Real(), reader, p, 0); err != nil || blktest.Check(p, 0, 1) != nil {
		t.Error("a reader: ", err, blktest.Check(p, 0, 1))
	}
	mustClose(t, reader)
	mustClose(t, d)
	mustClose(t, mustOpen(t, image, true))
}

// The size follows while I/O goes on.
func TestResizeUnderLoad(t *testing.T) {
	blktest.Leaks(t)
	image := newImage(t, "16M")
	d := mustOpen(t, image, true)
	l := blktest.StartLoad(t, checked(d), 32768, false)
	l.More(50)
	rbd(t, "resize", "--size", "32M", image)
	until(t, "the new size", func() bool { return d.Limits().Size == 65536 })
	if err := blk.WriteSectors(env.Real(), d, blktest.Pattern(65528, 8, 1), 65528, 0); err != nil {
		t.Error(err)
	}
	l.More(50)
	rbd(t, "resize", "--size", "16M", "--allow-shrink", image)
	until(t, "the old size", func() bool { return d.Limits().Size == 32768 })
	l.More(50)
	l.Stop()
	mustClose(t, d)
}

// An image is one disk by whatever name; another one under its name is another disk.
func TestIdentity(t *testing.T) {
	blktest.Leaks(t)
	image := newImage(t, "16M")
	moved := image + "-moved"
	o := leaf.New(env.Real())
	first, number, err := o.Open("rbd:"+image, true)
	if err != nil {
		t.Fatal(err)
	}
	rbd(t, "mv", image, moved)
	again, same, err := o.Open("rbd:"+moved, true)
	if err != nil || same != number {
		t.Fatal("the renamed image is ", same, ", not ", number, ": ", err)
	}
	if err := o.Movable(); err == nil {
		t.Error("another process could open the image by its old name")
	}
	rbd(t, "create", "--size", "16M", image)
	other, third, err := o.Open("rbd:"+image, true)
	if err != nil || third == number {
		t.Error("the new image is the old one: ", third, err)
	}
	if err := o.Movable(); err == nil || !strings.Contains(err.Error(), "another file") {
		t.Errorf("it could be moved: %v", err)
	}
	for _, d := range []blk.Device{first, again, other} {
		mustClose(t, d)
	}
	rbd(t, "rm", moved)
	for name, want := range map[string]syscall.Errno{
		moved: syscall.ENODEV, "rbd/none": syscall.ENODEV, "none/none": syscall.ENODEV, image + "@none": syscall.ENODEV,
		image + ":conf=/none": syscall.ENODEV, image + ":id=nobody": syscall.EACCES, image + ":no_such=1": syscall.EINVAL,
	} {
		if _, _, err := o.Open("rbd:"+name, false); !errors.Is(err, want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		} else {
			t.Log(err)
		}
	}
}

// A snapshot keeps its content, and is read only.
func TestSnapshot(t *testing.T) {
	blktest.Leaks(t)
	image := newImage(t, "16M")
	d := mustOpen(t, image, true)
	l := blktest.NewLoad(t, d, 32768)
	l.Write(blk.Write, 0, 2048, 0)
	rbd(t, "snap", "create", image+"@monday")
	then := l.M.Clone()
	l.Write(blk.Write, 1024, 2048, 0)
	snap := mustOpen(t, image+"@monday", false)
	old := &blktest.Load{T: t, D: snap, M: then}
	old.Read(0, 32768)
	l.Read(0, 32768)
	if st := blk.Do(env.Real(), snap, &blk.Bio{Op: blk.WriteZeroes, Sectors: 8}); !snap.Limits().ReadOnly || st != blk.ReadOnly {
		t.Error(snap.Limits(), st)
	}
	if _, err := open(image+"@monday", true); !errors.Is(err, syscall.EACCES) {
		t.Error(err)
	}
	mustClose(t, snap)
	mustClose(t, d)
}

// Holes are where nothing was written, also in a clone, and a map comes in bounded parts.
func TestAllocationMap(t *testing.T) {
	blktest.Leaks(t)
	image := newImage(t, "2G")
	clone := image + "-clone"
	d := mustOpen(t, image, true)
	l := blktest.NewLoad(t, d, 4<<20)
	l.Write(blk.Write, 8, 8, 0)
	l.Write(blk.Write, 100_000, 64, 0)
	l.Write(blk.Write, 3<<20, 8, 0)
	check := func(d *rbddev.Device, data ...uint64) {
		t.Helper()
		list := maps(t, d)
		if err := l.M.CheckExtents(list); err != nil {
			t.Error(err)
		}
		var found []uint64
		for _, x := range list {
			if x.Data {
				found = append(found, x.Sector, x.Sectors)
			}
		}
		if len(found) != len(data) {
			t.Errorf("data at %v, want %v", found, data)
		}
	}
	check(d, 8, 8, 100_000, 64, 3<<20, 8)
	if list, err := d.Extents(8, 4); err != nil || len(list) != 1 || list[0] != (blk.Extent{Sector: 8, Sectors: 4, Data: true}) {
		t.Error(list, err)
	}
	rbd(t, "snap", "create", image+"@base")
	rbd(t, "clone", "--rbd-default-clone-format", "2", image+"@base", clone)
	c := mustOpen(t, clone, true)
	l.D = c
	l.Write(blk.Write, 2<<20, 8, 0)
	check(c, 8, 8, 100_000, 64, 2<<20, 8, 3<<20, 8)
	mustClose(t, c)
	mustClose(t, d)
	rbd(t, "rm", clone)
}

// maps is the whole map.
func maps(t *testing.T, d *rbddev.Device) (list []blk.Extent) {
	size := d.Limits().Size
	for at := uint64(0); at < size; {
		part, err := d.Extents(at, size-at)
		if err != nil || len(part) == 0 || part[0].Sector != at {
			t.Fatal(part, err)
		}
		for _, x := range part {
			list = blk.AppendExtent(list, x)
		}
		at += blk.SumExtents(part)
	}
	return list
}

// A bio of many small pieces, which librbd does not take as they are.
func TestManySegments(t *testing.T) {
	d := mustOpen(t, newImage(t, "16M"), true)
	want := blktest.Pattern(16, 256, 7)
	for _, piece := range []int{1000, 100, 64} {
		var pieces [][]byte
		for p := bytes.Clone(want); len(p) > 0; p = p[min(piece, len(p)):] {
			pieces = append(pieces, p[:min(piece, len(p)):min(piece, len(p))])
		}
		b := &blk.Bio{Op: blk.Write, Sector: 16}
		b.SetBufs(pieces, 256)
		if st := blk.Do(env.Real(), d, b); st != blk.OK {
			t.Fatal(piece, st)
		}
		for _, p := range pieces {
			clear(p)
		}
		r := &blk.Bio{Op: blk.Read, Sector: 16}
		r.SetBufs(pieces, 256)
		if st := blk.Do(env.Real(), d, r); st != blk.OK || !bytes.Equal(bytes.Join(pieces, nil), want) {
			t.Errorf("pieces of %d bytes: %v", piece, st)
		}
	}
	mustClose(t, d)
}

// Allocations for a batch of bios do not grow with their number.
func TestAllocationsOfABio(t *testing.T) {
	d := mustOpen(t, newImage(t, "16M"), true)
	p := blktest.Pattern(0, 8, 1)
	ended := make(chan struct{}, 1)
	b := &blk.Bio{}
	n := testing.AllocsPerRun(200, func() {
		b.Reset()
		b.Op, b.End = blk.Write, func(*blk.Bio) { ended <- struct{}{} }
		b.SetData(p)
		d.Submit(b)
		<-ended
	})
	t.Logf("%v allocations", n)
	if n > 3 { // two queues that were idle start a goroutine each
		t.Errorf("%v allocations", n)
	}
	mustClose(t, d)
}
