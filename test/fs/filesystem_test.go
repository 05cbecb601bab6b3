package fs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var tools = []string{"mkfs.ext4", "mkfs.xfs", "mkfs.btrfs", "e2fsck", "xfs_repair", "btrfs", "mount", "fstrim", "stress-ng", "fio"}

// TestFileSystems makes every file system on every stack, works on it, gives
// space back, and checks it.
func TestFileSystems(t *testing.T) {
	needs(t, tools...)
	for i, s := range stacks {
		for j, f := range filesystems {
			if !*all && (i+j)%len(filesystems) != 0 {
				continue
			}
			t.Run(s.name+"/"+f.name, func(t *testing.T) { workOn(newRig(t), s, f) })
		}
	}
}

func workOn(r *rig, s stack, f filesystem) {
	s.make(r)
	device := r.attach("disk")
	f.make(r, device)
	dir := r.mount(device, "")
	stress(r, dir)
	verify(r, dir)
	before := fill(r, s, dir)
	r.unmount(dir)
	dir = r.mount(device, "") // what was deleted is free for sure only now
	trim(r, s, dir, before)
	r.unmount(dir)
	f.fsck(r, device)
	r.detach("disk")
	r.remove("disk") // nothing holds it open
}

// stressors are those of stress-ng that work on files, with what they need of
// memory and space kept small.
var stressors = strings.Fields(`--hdd 1 --hdd-bytes 16M --dentry 1 --dentries 200 --rename 1 --link 1 --symlink 1
	--fallocate 1 --fallocate-bytes 16M --fpunch 1 --seek 1 --seek-size 8M
	--dir 1 --filename 1 --sync-file 1 --sync-file-bytes 8M`)

func stressArgs(dir, seconds string) []string {
	return append([]string{"--temp-path", dir, "--timeout", seconds, "--quiet", "--oomable"}, stressors...)
}

func stress(r *rig, dir string) {
	r.Helper()
	sh(r.T, "stress-ng", stressArgs(dir, "3")...)
}

// verify writes and reads back with fio, which knows what it wrote where.
func verify(r *rig, dir string) {
	r.Helper()
	for _, job := range [][]string{
		{"--rw=randwrite", "--bsrange=4k-128k", "--direct=1", "--ioengine=libaio", "--iodepth=16"},
		{"--rw=write", "--bs=1M", "--direct=0", "--ioengine=psync", "--fsync=8"},
	} {
		sh(r.T, "fio", append(job, "--name=verify", "--directory="+dir, "--size=24M", "--verify=crc32c",
			"--verify_fatal=1", "--do_verify=1", "--verify_state_save=0", "--end_fsync=1", "--unlink=1", "--output-format=terse")...)
	}
}

// large is the size of a file that is written and deleted.
const large = 64 * mib

// fill writes something large, deletes it, and tells how many bytes were used.
func fill(r *rig, s stack, dir string) (used int64) {
	r.Helper()
	path := filepath.Join(dir, "large")
	r.must(os.WriteFile(path, bytes.Repeat([]byte{0xa5}, large), 0o600))
	sh(r.T, "sync", "-f", dir)
	if s.used != nil {
		used = s.used(r)
	}
	r.must(os.Remove(path))
	return used
}

// trim sees the space of what was deleted come back.
func trim(r *rig, s stack, dir string, before int64) {
	r.Helper()
	if s.used == nil {
		refuseTrim(r, dir)
		return
	}
	sh(r.T, "fstrim", dir)
	after := s.used(r)
	r.Logf("%d MiB used before fstrim, %d after", before/mib, after/mib)
	if before-after < large*3/4 {
		r.Errorf("fstrim gave back %d MiB of %d", (before-after)/mib, large/mib)
	}
}

// refuseTrim: a snapshot gives no space back, says so, and does not fill up.
func refuseTrim(r *rig, dir string) {
	r.Helper()
	before := storeUsed(r)
	if out, err := try("fstrim", "-v", dir); err == nil {
		r.Errorf("fstrim says that it works: %s", out)
	}
	if after := storeUsed(r); after > before+4*mib {
		r.Errorf("a refused fstrim took space: %d MiB before, %d after", before/mib, after/mib)
	}
}

// storeUsed reads a snapshot's status: sectors used/total metadata.
func storeUsed(r *rig) int64 {
	r.Helper()
	var used, total int64
	_, err := fmt.Sscanf(r.status("disk"), "%d/%d", &used, &total)
	r.must(err)
	r.Logf("the store holds %d of %d MiB", used/perMiB, total/perMiB)
	return used * sector
}
