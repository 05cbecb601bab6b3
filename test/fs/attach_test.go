package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"udm/ctl"
)

// TestAttach: told twice it is the same; what is attached is open; what is mounted
// cannot be detached.
func TestAttach(t *testing.T) {
	needs(t, "mkfs.ext4", "mount")
	r := newRig(t)
	makeLinear(r)
	device := r.udm("attach", "disk")
	if again := r.udm("attach", "disk"); again != device || !strings.HasPrefix(device, "/dev/loop") {
		t.Fatalf("attached as %q, then as %q", device, again)
	}
	if out, err := try(udm(t), "--root", r.root, "remove", "disk"); err == nil || !strings.Contains(out, "in use") {
		t.Fatalf("removing what is attached: %v, %s", err, out)
	}
	sh(t, "mkfs.ext4", "-q", device)
	dir := r.mount(device, "")
	if out, err := try(udm(t), "--root", r.root, "detach", "disk"); err == nil || !strings.Contains(out, device+" is in use") {
		t.Fatalf("detaching what is mounted: %v, %s", err, out)
	}
	r.unmount(dir)
	if out := r.udm("attach"); !strings.Contains(out, device) {
		t.Fatalf("the list has no %s: %s", device, out)
	}
	r.udm("detach", device)
	r.remove("disk")
	if out, err := try(udm(t), "--root", r.root, "attach", "disk"); err == nil || !strings.Contains(out, "no device is named disk") {
		t.Fatalf("attaching what is not there: %v, %s", err, out)
	}
}

// sizeOf is the size of a block device.
func sizeOf(r *rig, path string) int64 {
	r.Helper()
	f, err := os.Open(path)
	r.must(err)
	defer f.Close()
	n, err := f.Seek(0, io.SeekEnd)
	r.must(err)
	return n
}

// TestAttachedGrows: the block device sees a table that is longer, also after the
// device has got another name.
func TestAttachedGrows(t *testing.T) {
	needs(t)
	r := newRig(t)
	path := r.file("a", 64)
	r.create("disk", 32*perMiB, "linear %s 0", path)
	device := r.attach("disk")
	ref := ctl.Ref{Name: "other"}
	_, err := r.client.Rename(context.Background(), ctl.Rename{Ref: ctl.Ref{Name: "disk"}, NewName: "other"})
	r.must(err)
	_, err = r.client.Load(context.Background(), ctl.Load{Ref: ref, Table: fmt.Sprintf("0 %d linear %s 0", 64*perMiB, path)})
	r.must(err)
	_, err = r.client.Resume(context.Background(), ctl.Suspend{Ref: ref})
	r.must(err)
	if n := sizeOf(r, device); n != 64*mib {
		t.Fatalf("%s has %d bytes", device, n)
	}
	if again := r.attach("other"); again != device {
		t.Fatalf("attached as %s again, before as %s", again, device)
	}
	r.detach("other")
	r.remove("other")
}

// TestAttachReadOnly: a read-only device is a read-only block device.
func TestAttachReadOnly(t *testing.T) {
	needs(t)
	r := newRig(t)
	_, err := r.client.Create(context.Background(), ctl.Create{Name: "disk", ReadOnly: true,
		Table: fmt.Sprintf("0 %d linear %s 0", 32*perMiB, r.file("a", 32))})
	r.must(err)
	device := r.attach("disk")
	if f, err := os.OpenFile(device, os.O_RDWR, 0); err == nil {
		_, err = f.WriteAt(make([]byte, 4096), 0)
		f.Close()
		if err == nil {
			t.Fatal("a read-only device takes writes")
		}
	}
	if again := r.attach("disk"); again != device {
		t.Fatalf("attached as %s, then as %s", device, again)
	}
	r.detach("disk")
}

// TestAttachedSurvivesRestart: what was attached is attached at the same place
// after the daemon ended in order; under a mounted file system it moves elsewhere.
func TestAttachedSurvivesRestart(t *testing.T) {
	needs(t, "mkfs.ext4", "mount", "e2fsck")
	r := newRig(t)
	makeLinear(r)
	device := r.attach("disk")
	want := bytes.Repeat([]byte{7}, mib)
	r.must(os.WriteFile(device, want, 0))
	r.stop()
	r.start()
	as, err := r.client.Attachments(context.Background())
	r.must(err)
	if len(as) != 1 {
		t.Fatalf("attached after a restart: %v, before: %s", as, device)
	}
	device = r.sameOr(device, as[0].Path)
	got := make([]byte, mib)
	f, err := os.Open(device)
	r.must(err)
	_, err = io.ReadFull(f, got)
	r.must(errors.Join(err, f.Close()))
	if !bytes.Equal(got, want) {
		t.Fatal("what was written is lost")
	}
	sh(t, "mkfs.ext4", "-q", "-F", device)
	dir := r.mount(device, "")
	r.kill()
	r.start()
	now := r.attach("disk")
	if now == device {
		t.Fatalf("%s is mounted and attached anew", device)
	}
	r.must(syscall.Unmount(dir, 0))
	sh(t, "e2fsck", "-fp", now)
	r.unmount(r.mount(now, ""))
	r.detach("disk")
}

// TestBusyAtTheEnd: a daemon that ends in order below a mounted file system says
// so and ends.
func TestBusyAtTheEnd(t *testing.T) {
	needs(t, "mkfs.ext4", "mount")
	r := newRig(t)
	makeLinear(r)
	device := r.attach("disk")
	sh(t, "mkfs.ext4", "-q", "-F", device)
	dir := r.mount(device, "")
	r.stop()
	if !strings.Contains(r.log.String(), device+" is in use") {
		t.Errorf("it does not say that %s is in use", device)
	}
	r.must(syscall.Unmount(dir, 0))
	r.start()
	r.detach("disk")
}

// TestSuspendedLeavesOthersAlone: all that a device which is suspended can have
// under way does not stop another one.
func TestSuspendedLeavesOthersAlone(t *testing.T) {
	needs(t, "fio")
	r := newRig(t)
	r.create("a", 32*perMiB, "linear mem:32M 0")
	r.create("b", 32*perMiB, "linear mem:32M 0")
	a, b := r.attach("a"), r.attach("b")
	aio := []string{"--name=x", "--rw=randwrite", "--bs=4k", "--size=8M", "--direct=1", "--ioengine=libaio", "--iodepth=256"}
	var out string
	var err error
	var done sync.WaitGroup
	r.whileSuspended("a", func() {
		done.Go(func() { out, err = try("fio", append(aio, "--filename="+a)...) })
		awaitUnderWay(r, a, 100)
		sh(t, "fio", append(aio, "--filename="+b)...)
	})
	done.Wait()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestKilledWhileItEnds: a daemon that ends, and waits for a suspended device to
// take what the kernel has cached, goes at once when it is killed. The device is
// attached again when it is resumed.
func TestKilledWhileItEnds(t *testing.T) {
	needs(t)
	r := newRig(t)
	makeLinear(r)
	device := r.attach("disk")
	f, err := os.OpenFile(device, os.O_WRONLY, 0)
	r.must(err)
	defer f.Close() // not earlier: that would write out what the kernel has cached
	_, err = f.Write(bytes.Repeat([]byte{7}, mib))
	r.must(err)
	_, err = r.client.Suspend(context.Background(), ctl.Suspend{Ref: ctl.Ref{Name: "disk"}})
	r.must(err)
	r.must(r.cmd.Process.Signal(syscall.SIGTERM))
	awaitUnderWay(r, device, 1)
	r.kill()
	r.must(f.Close())
	r.start()
	if out, err := try(udm(t), "--root", r.root, "attach", "disk"); err == nil || !strings.Contains(out, "is suspended") {
		t.Errorf("attaching what is suspended: %v, %s", err, out)
	}
	_, err = r.client.Resume(context.Background(), ctl.Suspend{Ref: ctl.Ref{Name: "disk"}})
	r.must(err)
	as, err := r.client.Attachments(context.Background())
	r.must(err)
	if len(as) != 1 {
		t.Fatalf("attached after the resume: %v", as)
	}
	r.detach("disk")
}

// awaitUnderWay waits for n requests. The kernel counts them in a file and tells
// nobody when it changes.
func awaitUnderWay(r *rig, device string, n int) {
	for underWay(r, device) < n {
		time.Sleep(10 * time.Millisecond)
	}
}

// underWay counts the requests that a block device has.
func underWay(r *rig, device string) int {
	r.Helper()
	text, err := os.ReadFile("/sys/block/" + filepath.Base(device) + "/inflight")
	r.must(err)
	var reads, writes int
	fmt.Sscan(string(text), &reads, &writes)
	return reads + writes
}

// TestMountCommands: mount, list, refuse while busy, cut off, come back after a
// restart and after a kill.
func TestMountCommands(t *testing.T) {
	needs(t)
	r := newRig(t)
	makeLinear(r)
	dir := t.TempDir()
	file := filepath.Join(dir, "disk")
	r.udm("mount", dir)
	r.udm("mount", dir) // told twice
	if out := r.udm("mount"); out != dir {
		t.Fatalf("mounted at %q", out)
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	r.must(err)
	defer f.Close()
	if out, err := try(udm(t), "--root", r.root, "unmount", dir); err == nil || !strings.Contains(out, "--lazy") {
		t.Fatalf("unmounting what is in use: %v, %s", err, out)
	}
	if out, err := try(udm(t), "--root", r.root, "remove", "disk"); err == nil || !strings.Contains(out, "in use") {
		t.Fatalf("removing what is open: %v, %s", err, out)
	}
	r.udm("unmount", "--lazy", dir)
	if _, err := f.WriteAt([]byte{1}, 0); err == nil {
		t.Fatal("who was cut off can write")
	}
	r.udm("mount", dir)
	r.stop()
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the mount is still there: %v", err)
	}
	for range 2 {
		r.start()
		if _, err := os.Stat(file); err != nil {
			t.Fatalf("not mounted after a restart: %v", err)
		}
		r.kill()
	}
	r.start()
	r.udm("unmount", dir)
	r.remove("disk")
}

// TestMountOption: --mount is there as long as the daemon runs, and takes a dead
// one's place.
func TestMountOption(t *testing.T) {
	needs(t)
	r := newRig(t)
	makeLinear(r)
	dir := t.TempDir()
	for range 2 {
		r.kill()
		r.start("--mount", dir)
		if st, err := os.Stat(filepath.Join(dir, "disk")); err != nil || st.Size() != devSize*mib || st.Mode() != 0o600 {
			t.Fatalf("%v, %v", st, err)
		}
	}
	f, err := os.Open(filepath.Join(dir, "disk"))
	r.must(err)
	defer f.Close()
	r.stop()
	if !strings.Contains(r.log.String(), "programs with open files there will get errors") {
		t.Error("the log does not say that files were in use")
	}
	if es, err := os.ReadDir(dir); err != nil || len(es) != 0 {
		t.Errorf("the directory is not free: %v, %v", es, err)
	}
	r.start()
	if out := r.udm("mount"); out != "" {
		t.Errorf("--mount was remembered: %s", out)
	}
}
