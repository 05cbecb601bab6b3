package fs

import (
	"syscall"
	"testing"
)

// TestKilledDaemon kills the daemon below a mounted file system that is being
// written, and starts it again: the file system mounts, has every file that was
// durable, and is sound, again and again.
func TestKilledDaemon(t *testing.T) {
	needs(t, tools...)
	for i, s := range stacks {
		for j, f := range filesystems {
			if !*all && (i+j+1)%len(filesystems) != 0 {
				continue
			}
			t.Run(s.name+"/"+f.name, func(t *testing.T) { kills(newRig(t), s, f) })
		}
	}
}

func kills(r *rig, s stack, f filesystem) {
	s.make(r)
	device := r.attach("disk")
	f.make(r, device)
	var total int64
	for range *times {
		dir := r.mount(device, "")
		l := startLoad(r, dir)
		_, err := l.more(15)
		r.must(err)
		r.kill()
		n := l.kill()
		r.must(syscall.Unmount(dir, 0))
		r.start()
		device = r.sameOr(device, r.attach("disk"))
		dir = r.mount(device, "")
		r.must(check(dir, n))
		r.unmount(dir)
		f.fsck(r, device)
		total += n
	}
	r.Logf("%d kills; %d durable files, none lost", *times, total)
}
