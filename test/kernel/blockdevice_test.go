//go:build unix

package kernel

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// blockDeviceScript serves two devices of udm as /dev/nbd0 and /dev/nbd1: ext4 is made on a striped one and xfs on a thin one that is
// larger than its pool; both are filled, unmounted, checked, mounted again, trimmed and checked again.
const blockDeviceScript = `
udm() { "%[1]s" "$@"; }
export UDM_ROOT=$PWD/root
mkdir root mnt
ip link set lo up
"%[1]s" daemon --root $UDM_ROOT >$OUT/daemon 2>&1 & daemon=$!
i=0
until udm dmsetup ls >/dev/null 2>&1; do i=$((i+1)); [ $i -lt 300 ]; sleep 0.1; done
udm dmsetup create flat --table "0 245760 striped 2 128 $D0 0 $D1 0"
udm dmsetup create data <<-END
	0 204800 linear $D0 122880
	204800 204800 linear $D1 122880
	END
udm dmsetup create pool --table "0 409600 thin-pool $D2 /dev/mapper/data 128 0"
udm dmsetup message pool 0 create_thin 0
udm dmsetup create thin --table "0 819200 thin /dev/mapper/pool 0"
nbd-client -u $UDM_ROOT/nbd.sock /dev/nbd0 -N flat
nbd-client -u $UDM_ROOT/nbd.sock /dev/nbd1 -N thin
[ "$(blockdev --getsz /dev/nbd0)" = 245760 ]
[ "$(blockdev --getsz /dev/nbd1)" = 819200 ]
dd if=/dev/urandom of=file bs=1M count=8 status=none
sha256sum <file >sum
try() {
	fs=$1; dev=$2; make=$3; check=$4
	$make $dev
	mount -t $fs $dev mnt
	for f in 1 2 3 4; do cp file mnt/$f; done
	mkdir mnt/dir
	for f in $(seq 50); do echo $f >mnt/dir/$f; done
	rm mnt/2
	sync
	umount mnt
	$check $dev
	mount -t $fs $dev mnt
	for f in 1 3 4; do sha256sum <mnt/$f | cmp - sum; done
	[ "$(cat mnt/dir/50)" = 50 ]
	fstrim mnt
	cp file mnt/5
	umount mnt
	$check $dev
	echo $fs is clean
}
try ext4 /dev/nbd0 "mkfs.ext4 -q -F" "e2fsck -f -n"
try xfs /dev/nbd1 "mkfs.xfs -q -f" "xfs_repair -n"
udm dmsetup status pool
nbd-client -d /dev/nbd0
nbd-client -d /dev/nbd1
udm dmsetup remove --retry flat
udm dmsetup remove --retry thin
udm dmsetup remove --retry pool
kill $daemon
wait $daemon
echo the daemon ended
`

// TestKernelBlockDevice runs udm inside the kernel, below the kernel's own NBD client and file systems.
func TestKernelBlockDevice(t *testing.T) {
	t.Parallel()
	Need(t)
	meta := diskFile(t, "meta", 4<<20)
	r := Boot(t, Options{
		Disks:   []string{diskFile(t, "d0", 160<<20), diskFile(t, "d1", 160<<20), meta},
		Modules: append([]string{"nbd"}, DefaultModules...),
		Script:  fmt.Sprintf(blockDeviceScript, udmProgram(t)),
	})
	for _, want := range []string{"ext4 is clean", "xfs is clean", "the daemon ended"} {
		if !strings.Contains(r.Output, want) {
			t.Errorf("%q is missing in\n%s", want, r.Output)
		}
	}
	if out, err := exec.Command("thin_check", meta).CombinedOutput(); err != nil {
		t.Errorf("thin_check: %v\n%s", err, out)
	}
}
