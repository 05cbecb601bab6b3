//go:build unix

package kernel

import (
	"fmt"
	"strings"
	"testing"
)

// attachScript attaches devices of udm by the kernel's nbd driver. What it checks is in the lines that it prints.
const attachScript = `
udm() { "%[1]s" "$@"; }
export UDM_ROOT=$PWD/root
mkdir root mnt
start() {
	"$@" "%[1]s" daemon --root $UDM_ROOT >>$OUT/daemon 2>&1 & daemon=$!
	i=0
	until udm dmsetup ls >/dev/null 2>&1; do i=$((i+1)); [ $i -lt 300 ]; sleep 0.1; done
}
refused() {
	want=$1; shift
	if "$@" >message 2>&1; then echo "not refused: $*"; return 1; fi
	grep -q -- "$want" message || { cat message; return 1; }
}
gone() { # the block device has let go; its last user may be udev or the keeper of a daemon that died
	i=0
	while [ -e /sys/block/${1#/dev/}/pid ]; do i=$((i+1)); [ $i -lt 300 ]; sleep 0.1; done
	[ "$(blockdev --getsz $1)" = 0 ]
}
under_way() { while [ "$(awk '{print $1+$2}' /sys/block/${1#/dev/}/inflight)" = 0 ]; do sleep 0.1; done; }

start
udm create disk --table "0 65536 linear $D0 0"
refused "no nbd driver; try modprobe nbd" udm attach --nbd disk
modprobe -d /run/work nbd
echo the missing module is named

dev=$(udm attach --nbd disk)
[ $dev = /dev/nbd0 ]
[ "$(udm attach disk)" = $dev ]
[ "$(udm attach --nbd disk)" = $dev ]
[ "$(blockdev --getsz $dev)" = 65536 ]
[ "$(blockdev --getro $dev)" = 0 ]
udm attach | grep -q "disk  *$dev"
echo told twice it is the same

refused "disk is in use" udm remove disk
echo removal is refused

mkfs.ext4 -q $dev
mount -t ext4 $dev mnt
dd if=/dev/urandom of=file bs=1M count=8 status=none
cp file mnt
sync
refused "$dev is in use" udm detach disk
udm dmsetup suspend disk
refused "is suspended" udm detach disk
udm dmsetup load disk --table "0 131072 linear $D0 0"
udm dmsetup resume disk
[ "$(blockdev --getsz $dev)" = 131072 ]
umount mnt
e2fsck -f -p $dev
resize2fs $dev
mount -t ext4 $dev mnt
cmp file mnt/file
fstrim mnt
cp file mnt/more
umount mnt
e2fsck -f -n $dev
echo it grows

udm detach $dev
gone $dev
[ -z "$(udm attach)" ]
refused "is not attached" udm detach disk
udm remove disk
e2fsck -f -n $D0
mount -t ext4 -o ro $D0 mnt
cmp file mnt/more
umount mnt
echo detached, the file system is clean

udm dmsetup create --readonly ro --table "0 65536 linear $D0 0"
dev=$(udm attach --nbd ro)
[ "$(blockdev --getro $dev)" = 1 ]
refused . dd if=/dev/zero of=$dev bs=4k count=1 oflag=direct
udm detach ro
udm remove ro
echo read-only is read-only

udm create disk --table "0 131072 linear $D0 0"
dev=$(udm attach --nbd disk)
refused busy udm dmsetup remove --force disk
refused "Input/output error" dd if=$dev of=/dev/null bs=4k count=1 iflag=direct
udm detach disk
gone $dev
udm remove disk
echo forced removal leaves nothing

udm create disk --table "0 131072 linear $D0 0"
dev=$(udm attach --nbd disk)
nbd-client -d $dev
gone $dev
dev=$(udm attach --nbd disk)
kill $daemon
wait $daemon
gone $dev
start
[ "$(udm attach)" = "$(printf 'DEVICE  PATH\ndisk    %%s' $dev)" ]
[ "$(blockdev --getsz $dev)" = 131072 ]
echo it comes back

mount -t ext4 $dev mnt
udm dmsetup suspend disk
dd if=/dev/zero of=mnt/file bs=4k count=1 oflag=direct conv=notrunc 2>/dev/null & writer=$!
under_way $dev
kill -9 $daemon
wait $daemon || true
start
udm dmsetup resume disk
wait $writer
cp file mnt/third
kill $daemon
wait $daemon
sync & syncer=$!
start
wait $syncer
[ "$(udm attach)" = "$(printf 'DEVICE  PATH\ndisk    %%s' $dev)" ]
umount mnt
e2fsck -f -n $dev
mount -t ext4 $dev mnt
cmp file mnt/third
umount mnt
echo users wait for the next daemon

udm create mem --table "0 8192 linear mem:4M 0"
mem=$(udm attach --nbd mem)
udm dmsetup suspend mem
dd if=/dev/zero of=$mem bs=4k count=1 oflag=direct 2>/dev/null & writer=$!
under_way $mem
kill -9 $daemon
wait $daemon || true
if wait $writer; then echo "a write to memory that is gone succeeds"; exit 1; fi
gone $mem
echo of a disk in memory they get errors

start
udm remove mem
[ "$(udm attach disk)" = $dev ]
udm detach disk
e2fsck -f -n $D0
[ "$(udm attach --nbd disk)" = $dev ]
sh -c 'until [ -e go ]; do sleep 0.1; done; dd if=file bs=1M oflag=direct status=none >&9' 9<>$dev & writer=$!
until ls -l /proc/$writer/fd | grep -q "$dev$"; do sleep 0.1; done
kill $daemon
wait $daemon
[ -e /sys/block/${dev#/dev/}/pid ]
touch go
start
wait $writer
cmp -n 8388608 file $dev
udm detach disk
gone $dev
echo programs that only have it open wait as well

kill $daemon
wait $daemon
echo it goes on

start setpriv --bounding-set -sys_admin --inh-caps -sys_admin
refused "CAP_SYS_ADMIN" udm attach --nbd disk
udm remove disk
kill $daemon
wait $daemon
echo the missing right is named

start
udm create disk --table "0 65536 linear $D0 0"
dev=$(udm attach disk)
case $dev in /dev/nbd*) ;; *) exit 1;; esac
kill $daemon
wait $daemon
echo without a loop driver it is nbd
`

// TestKernelAttach runs udm inside the kernel, which has its devices by its nbd driver.
func TestKernelAttach(t *testing.T) {
	t.Parallel()
	Need(t)
	script := fmt.Sprintf(attachScript, udmProgram(t))
	r := Boot(t, Options{
		Disks:   []string{diskFile(t, "d0", 64<<20)},
		Modules: []string{},
		Script:  script,
	})
	for line := range strings.Lines(script) {
		if want, ok := strings.CutPrefix(line, "echo "); ok && !strings.Contains(r.Output, want) {
			t.Errorf("%q is missing in\n%s", want, r.Output)
		}
	}
}
