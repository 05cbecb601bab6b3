package fs

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

const (
	mib     = 1 << 20
	sector  = 512
	perMiB  = mib / sector
	devSize = 400 // MiB of the devices that file systems are made on
)

// stack is a way to make the device "disk".
type stack struct {
	name string
	make func(r *rig)
	// used is how many bytes are taken below "disk"; nil: it gives none back.
	used func(r *rig) int64
}

var stacks = []stack{
	{"linear", makeLinear, func(r *rig) int64 { return allocated(r, "a") }},
	{"striped", makeStriped, func(r *rig) int64 { return allocated(r, "a") + allocated(r, "b") }},
	{"snapshot", makeSnapshot, nil},
	{"thin", makeThin, poolUsed},
	{"thin-snapshot", makeThinSnapshot, poolUsed},
}

func stackNamed(name string) stack {
	for _, s := range stacks {
		if s.name == name {
			return s
		}
	}
	panic(name)
}

func makeLinear(r *rig) { r.create("disk", devSize*perMiB, "linear %s 0", r.file("a", devSize)) }

func makeStriped(r *rig) {
	r.create("disk", devSize*perMiB, "striped 2 128 %s 0 %s 0", r.file("a", devSize/2), r.file("b", devSize/2))
}

// makeOrigin makes "disk" a device that snapshots can be taken of.
func makeOrigin(r *rig) {
	r.create("real", devSize*perMiB, "linear %s 0", r.file("a", devSize))
	r.create("disk", devSize*perMiB, "snapshot-origin /dev/mapper/real")
}

func makeSnapshot(r *rig) {
	r.create("real", devSize*perMiB, "linear %s 0", r.file("a", devSize))
	r.create("disk", devSize*perMiB, "snapshot /dev/mapper/real %s P 16", r.file("cow", devSize+50))
}

func makePool(r *rig) {
	r.create("pool", 2*devSize*perMiB, "thin-pool %s %s 128 0", r.file("meta", 8), r.file("data", 2*devSize))
	r.message("pool", "create_thin 1")
}

func makeThin(r *rig) {
	makePool(r)
	r.create("disk", devSize*perMiB, "thin /dev/mapper/pool 1")
}

// makeThinSnapshot makes "disk" a snapshot of a volume that has a file system.
func makeThinSnapshot(r *rig) {
	makePool(r)
	r.create("base", devSize*perMiB, "thin /dev/mapper/pool 1")
	path := r.attach("base")
	sh(r.T, "mkfs.ext4", "-q", path)
	r.detach("base")
	r.whileSuspended("base", func() { r.message("pool", "create_snap 2 1") })
	r.create("disk", devSize*perMiB, "thin /dev/mapper/pool 2")
}

func allocated(r *rig, file string) int64 {
	r.Helper()
	st, err := os.Stat(r.dir + "/" + file)
	r.must(err)
	return st.Sys().(*syscall.Stat_t).Blocks * sector
}

// poolUsed reads the pool's status: transaction, metadata used/total, data used/total.
func poolUsed(r *rig) int64 {
	r.Helper()
	words := strings.Fields(r.status("pool"))
	var used, total int64
	if len(words) < 3 {
		r.Fatalf("the pool's status is %q", words)
	}
	_, err := fmt.Sscanf(words[2], "%d/%d", &used, &total)
	r.must(err)
	return used * 64 << 10
}

// filesystem is how to make and check one.
type filesystem struct {
	name         string
	mkfs, check  []string
	snapshotOpts string // to mount a copy beside the original
}

var filesystems = []filesystem{
	{"ext4", []string{"mkfs.ext4", "-q", "-F"}, []string{"e2fsck", "-fn"}, ""},
	{"xfs", []string{"mkfs.xfs", "-q", "-f"}, []string{"xfs_repair", "-n"}, "nouuid"},
	{"btrfs", []string{"mkfs.btrfs", "-q", "-f"}, []string{"btrfs", "check", "--readonly"}, ""},
}

func (f filesystem) make(r *rig, device string) {
	r.Helper()
	sh(r.T, f.mkfs[0], append(f.mkfs[1:], device)...)
}

func (f filesystem) fsck(r *rig, device string) {
	r.Helper()
	sh(r.T, f.check[0], append(f.check[1:], device)...)
}
