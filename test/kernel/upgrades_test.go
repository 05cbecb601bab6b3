//go:build unix

package kernel

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"udm/test/program"
)

// upgradesScript has file systems in use on attached devices, by the drivers %[3]s and by loop, while the daemon is replaced, and
// without loop while it is killed and started again. steady verifies what it reads, and tells how long its I/O took.
const upgradesScript = `
udm() { "%[1]s" "$@"; }
export UDM_ROOT=$PWD/root
mkdir root mnt
start() {
	"%[1]s" daemon --root $UDM_ROOT >>$OUT/daemon 2>&1 3>&- 4<&- &
	i=0
	until udm dmsetup ls >/dev/null 2>&1; do i=$((i+1)); [ $i -lt 3000 ]; sleep 0.1; done
}
device() { # attached by a driver as a block device with a file system: NAME TABLE DRIVER TYPE
	udm create $1 --table "$2"
	case $3 in
	loop) dev=$(udm attach $1);;
	*) dev=$(udm attach --$3 $1);;
	esac
	case $dev in /dev/$3*) ;; *) echo "$dev is not of $3"; return 1;; esac
	mkfs.$4 -q $dev
	mkdir mnt/$1
	mount -t $4 $dev mnt/$1
}
use() { # steady, in folders
	rm -f in out
	mkfifo in out
	"%[2]s" "$@" <in >out & steady=$!
	exec 3>in 4<out
}
more() {
	echo more >&3
	read -r line <&4
	case $line in ok*) echo "after $1, longest: ${line#ok } ms";; *) echo "$line"; return 1;; esac
}
end() { # read all again
	exec 3>&-
	read -r line <&4
	wait $steady
	echo "$line"
}
old() { cat $UDM_ROOT/lock; }

modprobe -d /run/work nbd
modprobe -d /run/work loop
modprobe -d /run/work fuse
for module in %[4]s; do insmod $module; done
start
udm create pool --table "0 327680 thin-pool $D0 $D1 128 0"
for id in 0 1 2; do udm dmsetup message pool 0 "create_thin $id"; done
device looped "0 131072 thin /dev/mapper/pool 0" loop ext4
n=0
for driver in %[3]s; do
	device $driver-thin "0 819200 thin /dev/mapper/pool $((n+1))" $driver xfs
	case $n in 0) disk=$D2;; *) disk=$D3;; esac
	device $driver-disk "0 131072 linear $disk 0" $driver ext4
	n=$((n+1))
done

use mnt/*
more "the start"
for round in $(seq %[5]d); do
	before=$(old)
	udm daemon --replace --root $UDM_ROOT >>$OUT/daemon 2>&1
	[ $(old) != $before ]
	more "an upgrade"
done
end
echo the last daemon serves what the first one has attached

umount mnt/looped
udm detach looped
rmdir mnt/looped
use mnt/*
for round in $(seq %[6]d); do
	more "another start"
	daemon=$(old)
	kill -9 $daemon
	while kill -0 $daemon 2>/dev/null; do sleep 0.1; done
	start
	more "a kill"
done
end
for dir in mnt/*; do
	dev=$(findmnt -n -o SOURCE $dir)
	type=$(findmnt -n -o FSTYPE $dir)
	umount $dir
	case $type in ext4) e2fsck -f -n $dev;; *) xfs_repair -n $dev;; esac
	udm detach $dev
done
kill $(old)
echo the file systems have survived
`

// TestKernelUpgrades has file systems in use on devices that the kernel's nbd and loop drivers attach.
func TestKernelUpgrades(t *testing.T) {
	t.Parallel()
	testUpgrades(t, "", "nbd")
}

// TestUblkUpgrades adds those of its ublk driver.
func TestUblkUpgrades(t *testing.T) {
	t.Parallel()
	Need(t)
	testUpgrades(t, ublkModule(t), "ublk", "nbd")
}

func testUpgrades(t *testing.T, module string, drivers ...string) {
	Need(t)
	script := fmt.Sprintf(upgradesScript, udmProgram(t), program.Build(t, "udm/test/kernel/steady"), strings.Join(drivers, " "), module,
		number(*upgrades, 2, 20), number(*kills, 2, 10))
	o := Options{Modules: []string{}, Script: script}
	for i, size := range []int64{4 << 20, 160 << 20, 64 << 20, 64 << 20} {
		o.Disks = append(o.Disks, diskFile(t, fmt.Sprint("d", i), size))
	}
	r := Boot(t, o)
	for _, want := range []string{"the last daemon serves", "the file systems have survived"} {
		if !strings.Contains(r.Output, want) {
			t.Errorf("%q is missing in\n%s", want, r.Output)
		}
	}
	for _, what := range []string{"an upgrade", "a kill"} {
		t.Logf("after %s, the longest I/O in milliseconds: %v", what, longest(t, r.Output, what))
	}
	t.Log(regexp.MustCompile(`ok, .*`).FindAllString(r.Output, -1), stalls(t, r.Dir))
}

// stalls returns what daemons say about how long devices waited.
func stalls(t *testing.T, dir string) []string {
	text, err := os.ReadFile(filepath.Join(dir, "daemon"))
	if err != nil {
		t.Error(err)
	}
	return regexp.MustCompile(`stalled=\S+`).FindAllString(string(text), -1)
}

// longest returns the times of a kind, in ascending order.
func longest(t *testing.T, output, what string) (times []int) {
	for _, m := range regexp.MustCompile("after "+what+`, longest: (\d+) ms`).FindAllStringSubmatch(output, -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Error(err)
		}
		times = append(times, n)
	}
	slices.Sort(times)
	return times
}
