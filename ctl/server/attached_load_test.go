//go:build linux

package server

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"udm/ctl"
	"udm/test/need"
)

// attach gives devices a loop device each, if this machine can.
func (r *replaced) attach(names ...string) {
	r.t.Helper()
	if !need.Has(r.t, "/dev/loop-control") {
		return
	}
	for _, name := range names {
		_, err := r.Attach(context.Background(), ctl.Attach{Ref: ref(name), Driver: ctl.DriverLoop})
		r.must(err)
		r.attached = append(r.attached, name)
	}
}

// path returns where a device is attached now.
func (r *replaced) path(name string) string {
	r.t.Helper()
	list, err := r.Attachments(context.Background())
	r.must(err)
	for _, a := range list {
		if a.Name == name {
			return a.Path
		}
	}
	r.t.Fatalf("%s is not attached, but %v are", name, list)
	return ""
}

// open opens the loop device of a device, past the kernel's cache.
func (r *replaced) open(name string) overFile {
	r.t.Helper()
	f, err := os.OpenFile(r.path(name), os.O_RDWR|syscall.O_DIRECT, 0)
	r.must(err)
	r.t.Cleanup(func() { f.Close() })
	return overFile{f}
}

// Loop devices in use go on while the daemon, which has a keeper, is ended and started again
// under load, and other devices are attached and detached.
func TestAttachedKeptUnderLoad(t *testing.T) {
	need.Root(t)
	need.Open(t, "/dev/loop-control", "/dev/fuse")
	r := startReplaced(t, "")
	keepFor(t, r.root)
	r.attach(together...)
	var files []overFile
	for i, name := range r.attached {
		f := r.open(name)
		files = append(files, f)
		r.clients.Go(func() { r.use(f, 0, rand.New(rand.NewPCG(uint64(i), 3))) })
	}
	for range *killings {
		r.run(100)
		r.again(syscall.SIGTERM)
		_, err := r.Attach(context.Background(), ctl.Attach{Ref: ref(alone[0]), Driver: ctl.DriverLoop})
		r.must(err)
		r.must(r.Detach(context.Background(), ref(alone[0])))
	}
	r.run(100)
	r.stop()
	for _, f := range files {
		r.must(f.Close())
		if file := backing(f.Name()); !strings.HasPrefix(filepath.Base(file), "dm-") {
			t.Errorf("%s is attached to %q after its users have closed it", f.Name(), file)
		}
	}
	t.Logf("%d restarts, %d I/Os, the longest took %v", *killings, r.count.Load(), time.Duration(r.longest.Load()).Round(time.Millisecond))
}

// What was written by a loop device, and synced, is there after the daemon was killed: it is
// attached again, and the loop device before is gone.
func TestAttachedKilled(t *testing.T) {
	need.Root(t)
	need.Open(t, "/dev/loop-control", "/dev/fuse")
	r := startReplaced(t, "")
	r.attach(together...)
	for round := range *killings {
		was := make(map[string]string)
		for _, name := range r.attached {
			f := r.open(name)
			was[name] = f.Name()
			for block := range min(round, blocks) {
				r.has(f, block)
			}
			r.must(f.write(filled(uint64(round%blocks)), round%blocks))
			r.must(f.Sync())
			r.must(f.Close())
		}
		r.kill()
		for name, path := range was {
			if now, file := r.path(name), backing(path); now != path && r.serves(file) {
				t.Errorf("%s is at %s, and %s is still attached to %s", name, now, path, file)
			}
		}
	}
}

// serves reports whether the file of a loop device is one of this root, or of a mount that is gone. Another root's
// daemon may have taken the loop device since.
func (r *replaced) serves(file string) bool {
	dir, name := filepath.Split(file)
	return strings.HasPrefix(name, "dm-") && (dir == "/" || strings.HasPrefix(dir, r.root+"/"))
}

// backing is the file of a loop device; "": none.
func backing(path string) string {
	text, _ := os.ReadFile(filepath.Join("/sys/block", filepath.Base(path), "loop/backing_file"))
	return string(text)
}

// has checks that a block has its number.
func (r *replaced) has(f overFile, block int) {
	r.t.Helper()
	p := make([]byte, blockSize)
	if err := f.read(p, block); err != nil || string(p) != string(filled(uint64(block))) {
		r.t.Errorf("block %d: %v, %x", block, err, p[:16])
	}
}
