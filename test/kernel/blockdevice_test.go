package kernel

import (
	"fmt"
	"strings"
	"testing"
)

// blockDeviceScript serves a device-mapper device of udm as /dev/nbd0, makes file systems on it, fills, unmounts and checks them.
const blockDeviceScript = `
udm() { "%[1]s" "$@"; }
export UDM_ROOT=$PWD/root
mkdir root mnt
ip link set lo up
udm daemon --root $UDM_ROOT >$OUT/daemon 2>&1 & daemon=$!
i=0
until udm dmsetup ls >/dev/null 2>&1; do i=$((i+1)); [ $i -lt 100 ]; sleep 0.1; done
udm dmsetup create disk <<-END
	0 409600 linear $D0 0
	409600 409600 striped 2 128 $D0 409600 $D1 0
	END
nbd-client -u $UDM_ROOT/nbd.sock /dev/nbd0 -N disk
[ "$(blockdev --getsz /dev/nbd0)" = 819200 ]
dd if=/dev/urandom of=file bs=1M count=8 status=none
sha256sum <file >sum
for fs in ext4 xfs; do
	case $fs in
	ext4) make="mkfs.ext4 -q -F"; check="e2fsck -f -n" ;;
	xfs) make="mkfs.xfs -q -f"; check="xfs_repair -n" ;;
	esac
	$make /dev/nbd0
	mount -t $fs /dev/nbd0 mnt
	for f in 1 2 3 4; do cp file mnt/$f; done
	mkdir mnt/dir
	for f in $(seq 50); do echo $f >mnt/dir/$f; done
	rm mnt/2
	sync
	umount mnt
	$check /dev/nbd0
	mount -t $fs /dev/nbd0 mnt
	for f in 1 3 4; do sha256sum <mnt/$f | cmp - sum; done
	[ "$(cat mnt/dir/50)" = 50 ]
	fstrim mnt
	cp file mnt/5
	umount mnt
	$check /dev/nbd0
	echo $fs is clean
done
[ "$(udm dmsetup info -c --noheadings -o open disk)" -ge 1 ]
nbd-client -d /dev/nbd0
udm dmsetup remove --retry disk
kill $daemon
wait $daemon
echo the daemon ended
`

// TestBlockDevice runs udm inside the kernel, below the kernel's own NBD client.
func TestBlockDevice(t *testing.T) {
	Need(t)
	r := Boot(t, Options{
		Disks:   []string{diskFile(t, "d0", 320<<20), diskFile(t, "d1", 100<<20)},
		Modules: append([]string{"nbd"}, DefaultModules...),
		Script:  fmt.Sprintf(blockDeviceScript, udmProgram(t)),
		Timeout: conformanceLimit,
	})
	for _, want := range []string{"ext4 is clean", "xfs is clean", "the daemon ended"} {
		if !strings.Contains(r.Output, want) {
			t.Errorf("%q is missing in\n%s", want, r.Output)
		}
	}
}
