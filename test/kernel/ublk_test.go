//go:build unix

package kernel

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"udm/test/need"
	"udm/test/program"
)

// ublkScript attaches devices of udm by the kernel's ublk driver. What it checks is in the lines that it prints.
const ublkScript = `
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

start
udm create disk --table "0 65536 linear $D0 0"
refused "no ublk driver.*; try modprobe ublk_drv" udm attach --ublk disk
insmod %[2]s
echo the missing module is named

dev=$(udm attach --ublk disk)
[ $dev = /dev/ublkb0 ]
[ "$(udm attach disk)" = $dev ]
[ "$(udm attach --ublk disk)" = $dev ]
[ "$(blockdev --getsz $dev)" = 65536 ]
[ "$(blockdev --getro $dev)" = 0 ]
[ "$(cat /sys/block/ublkb0/queue/write_cache)" = "write back" ]
udm attach | grep -q "disk  *$dev"
refused "disk is in use" udm remove disk
echo told twice it is the same

[ "$(ls /sys/block/ublkb0/mq | wc -l)" = "$(nproc)" ]
dd if=/dev/urandom of=big bs=1M count=32 status=none
on() { taskset -c $(($1 % $(nproc))) dd bs=4M count=2 oflag=direct iflag=fullblock conv=notrunc status=none "$2" "$3" skip=$(($1 * 2)) seek=$(($1 * 2)); }
for n in 0 1 2 3; do on $n if=big of=$dev & eval "user$n=$!"; done
wait $user0; wait $user1; wait $user2; wait $user3
echo 3 >/proc/sys/vm/drop_caches
for n in 0 1 2 3; do cmp -i $((n * 8388608)) -n 8388608 big $dev & eval "user$n=$!"; done
wait $user0; wait $user1; wait $user2; wait $user3
readers=
for n in $(seq 0 63); do dd if=$dev of=/dev/null bs=512k skip=$n count=1 iflag=direct status=none & readers="$readers $!"; done
wait $readers
rm big
echo each processor has a queue, and long requests take turns

mkfs.ext4 -q $dev
mount -t ext4 $dev mnt
dd if=/dev/urandom of=file bs=1M count=8 status=none
cp file mnt
sync
refused "$dev is in use" udm detach disk
umount mnt
udm dmsetup suspend disk
refused "is suspended" udm detach disk
udm dmsetup load disk --table "0 131072 linear $D0 0"
udm dmsetup resume disk
if [ %[3]v = true ]; then
	[ "$(udm attach disk)" = $dev ]
	[ "$(blockdev --getsz $dev)" = 131072 ]
else
	refused "cannot change it" udm attach disk
fi
udm detach disk
[ ! -e $dev ]
[ -z "$(udm attach)" ]
refused "is not attached" udm detach disk
dev=$(udm attach --ublk disk)
[ "$(blockdev --getsz $dev)" = 131072 ]
e2fsck -f -p $dev
resize2fs $dev
mount -t ext4 $dev mnt
cmp file mnt/file
fstrim mnt
cp file mnt/more
umount mnt
e2fsck -f -n $dev
udm detach $dev
udm remove disk
e2fsck -f -n $D0
mount -t ext4 -o ro $D0 mnt
cmp file mnt/more
umount mnt
echo it grows by another attachment, and the file system is clean

udm dmsetup create --readonly ro --table "0 65536 linear $D0 0"
dev=$(udm attach --ublk ro)
[ "$(blockdev --getro $dev)" = 1 ]
refused . dd if=/dev/zero of=$dev bs=4k count=1 oflag=direct
udm detach ro
udm remove ro
echo read-only is read-only

chmod 666 /dev/ublk-control
cp "%[1]s" program
mkdir -m 777 user
UDM_ROOT=$PWD/user setpriv --reuid 65534 --regid 65534 --clear-groups ./program daemon >>$OUT/user 2>&1 & other=$!
i=0
until UDM_ROOT=$PWD/user ./program dmsetup ls >/dev/null 2>&1; do i=$((i+1)); [ $i -lt 300 ]; sleep 0.1; done
UDM_ROOT=$PWD/user ./program create mine --table "0 65536 zero"
UDM_ROOT=$PWD/user refused "user 65534, may not use the ublk driver.*; run it with CAP_SYS_ADMIN, or use udm mount" ./program attach --ublk mine
kill $other
wait $other
rm program
[ -z "$(ls /dev | grep ublk[bc])" ]
echo an ordinary user is told what is missing

udm create disk --table "0 131072 linear $D0 0"
dev=$(udm attach --ublk disk)
kill $daemon
wait $daemon
[ ! -e $dev ]
start
[ "$(udm attach)" = "$(printf 'DEVICE  PATH\ndisk    %%s' $dev)" ]
mount -t ext4 $dev mnt
kill $daemon
wait $daemon
[ -e $dev ]
dd if=/dev/zero of=mnt/file bs=4k count=1 oflag=direct conv=notrunc 2>message & writer=$!
until [ "$(cut -d' ' -f3 /proc/$writer/stat)" = D ]; do sleep 0.1; done
start
wait $writer
cp file mnt/file
echo a daemon that ends leaves users waiting for the next one

udm dmsetup suspend disk
dd if=/dev/zero of=mnt/file bs=4k count=1 oflag=direct conv=notrunc 2>message & writer=$!
until [ "$(cut -d' ' -f3 /proc/$writer/stat)" = D ]; do sleep 0.1; done
kill $daemon
wait $daemon || true
start
udm dmsetup resume disk
wait $writer
umount mnt
e2fsck -f -n $dev
udm detach disk
[ ! -e $dev ]
echo also those of a suspended device

dev=$(udm attach --ublk disk)
sh -c 'until [ -e go ]; do sleep 0.1; done; dd if=file bs=1M oflag=direct status=none >&9' 9<>$dev & writer=$!
until ls -l /proc/$writer/fd | grep -q "$dev$"; do sleep 0.1; done
kill $daemon
wait $daemon
[ -e $dev ]
touch go
start
wait $writer
cmp -n 8388608 file $dev
udm detach disk
[ ! -e $dev ]
echo and programs that only have it open
`

// ublkKilledScript kills the daemon while files are copied to file systems, which then wait for the next daemon: also one on a thin volume,
// whose last mappings a daemon that dies takes along unless it has committed them. Users of a disk in its memory get errors.
const ublkKilledScript = `
udm() { "%[1]s" "$@"; }
export UDM_ROOT=$PWD/root
mkdir root mnt mnt/disk mnt/snap mnt/thin mnt/mem
start() {
	"%[1]s" daemon --root $UDM_ROOT >>$OUT/daemon 2>&1 & daemon=$!
	i=0
	until udm dmsetup ls >/dev/null 2>&1; do i=$((i+1)); [ $i -lt 300 ]; sleep 0.1; done
}
load() { for n in $(seq 40); do cp file $1/$n; sync -f $1/$n; done; }

insmod %[2]s
start
udm create disk --table "0 131072 linear $D0 0"
udm create snap --table "0 131072 snapshot $D1 $D2 P 8"
udm create pool --table "0 131072 thin-pool $D4 $D3 128 0"
udm dmsetup message pool 0 create_thin 0
udm create thin --table "0 131072 thin /dev/mapper/pool 0"
udm create mem --table "0 131072 linear mem:64M 0"
for name in disk snap thin mem; do
	dev=$(udm attach --ublk $name)
	mkfs.ext4 -q $dev
	mount -t ext4 $dev mnt/$name
done
dd if=/dev/urandom of=file bs=1M count=1 status=none
load mnt/disk & disk=$!
load mnt/snap & snap=$!
load mnt/thin & thin=$!
load mnt/mem 2>message & mem=$!
for name in disk snap thin mem; do
	while [ ! -e mnt/$name/3 ]; do sleep 0.1; done
done
kill -9 $daemon
wait $daemon || true
if wait $mem; then echo "writes to a disk in memory whose daemon died succeed"; exit 1; fi
umount mnt/mem
echo who uses a disk in memory gets errors
for n in 0 1 2; do [ -e /dev/ublkb$n ]; done
kill -0 $disk
kill -0 $snap
kill -0 $thin
echo the others wait

start
wait $disk
wait $snap
wait $thin
echo 3 >/proc/sys/vm/drop_caches
for name in disk snap thin; do
	for n in $(seq 40); do cmp file mnt/$name/$n; done
	umount mnt/$name
done
for n in 0 1 2; do e2fsck -f -n /dev/ublkb$n; done
echo nothing is lost

for name in disk snap thin; do udm detach $name; done
e2fsck -f -n $D0
kill $daemon
wait $daemon
echo it goes on
`

// ublkSeveralScript kills and ends the daemon of several block devices under load; the next one recovers all of them.
const ublkSeveralScript = `
udm() { "%[1]s" "$@"; }
export UDM_ROOT=$PWD/root
mkdir root
start() {
	"%[1]s" daemon --root $UDM_ROOT >>$OUT/daemon 2>&1 & daemon=$!
	i=0
	until udm dmsetup ls >/dev/null 2>&1; do i=$((i+1)); [ $i -lt 300 ]; sleep 0.1; done
}
load() {
	for n in 0 1 2 3; do
		dd if=data of=mnt/$n/file bs=64k oflag=direct status=none & eval "load$n=$!"
	done
	for n in 0 1 2 3; do while [ ! -s mnt/$n/file ]; do sleep 0.1; done; done
}
recovered() {
	began=$(cut -d' ' -f1 /proc/uptime)
	start
	until [ "$(udm attach | grep -c ublkb)" = 4 ]; do sleep 0.1; done
	echo "recovered from $began to $(cut -d' ' -f1 /proc/uptime)"
	for n in 0 1 2 3; do
		eval "wait \$load$n"
		umount mnt/$n
		mount -t ext4 /dev/ublkb$n mnt/$n
		cmp data mnt/$n/file
		rm mnt/$n/file
	done
}

insmod %[2]s
start
for n in 0 1 2 3; do
	udm create disk$n --table "0 32768 linear $D0 $((n * 32768))"
	[ "$(udm attach --ublk disk$n)" = /dev/ublkb$n ]
	mkfs.ext4 -q -O ^has_journal /dev/ublkb$n
	mkdir -p mnt/$n
	mount -t ext4 /dev/ublkb$n mnt/$n
done
dd if=/dev/urandom of=data bs=1M count=8 status=none
load
kill -9 $daemon
wait $daemon || true
recovered
echo the devices of a daemon that was killed are recovered

load
kill $daemon
wait $daemon || true # on a slow machine it gives up after ten seconds, which its users do not notice
recovered
echo so are those of one that ended

for n in 0 1 2 3; do
	umount mnt/$n
	e2fsck -f -n /dev/ublkb$n
	udm detach disk$n
done
kill $daemon
wait $daemon
`

// ublkServersScript has servers leave and killed under requests that do not pause.
const ublkServersScript = `
insmod %[2]s
"%[4]s" 10
echo no request is lost
`

func ublkModule(t *testing.T) string {
	t.Helper()
	version, err := Version()
	if err != nil {
		t.Fatal(err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(cache, "udm", "uml-"+version, "ublk_drv.ko")
	if _, err := os.Stat(path); err != nil {
		need.Missing(t, err.Error()+": the driver is built by make test-ublk")
	}
	return path
}

// TestUblk runs udm inside kernels, which have its devices by their ublk driver.
func TestUblk(t *testing.T) { testUblk(t, ublkScript, 64<<20) }

// TestUblkKilled kills the daemon below file systems in use.
func TestUblkKilled(t *testing.T) {
	testUblk(t, ublkKilledScript, 64<<20, 64<<20, 96<<20, 64<<20, 4<<20)
}

// TestUblkSeveral has several block devices recovered by the next daemon.
func TestUblkSeveral(t *testing.T) { testUblk(t, ublkSeveralScript, 64<<20) }

// TestUblkServers tries the driver's part in the end of a server without a daemon, and so much more often.
func TestUblkServers(t *testing.T) {
	testUblk(t, strings.ReplaceAll(ublkServersScript, "%[4]s", program.Build(t, "udm/test/kernel/servers")), 1<<20)
}

// testUblk boots the user-mode kernel and those of -machines with a script, which echoes what it has found.
func testUblk(t *testing.T, script string, sizes ...int64) {
	Need(t)
	t.Run("user mode", func(t *testing.T) {
		t.Parallel()
		bootUblk(t, Options{Modules: []string{}}, script, sizes, ublkModule(t), false)
	})
	for _, folder := range strings.Fields(*machines) {
		version, err := machineVersion(folder)
		if err != nil {
			t.Fatal(err)
		}
		module := filepath.Join(folder, "lib/modules", version, "kernel/drivers/block/ublk_drv.ko.xz")
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			bootUblk(t, Options{Machine: folder, Modules: []string{"virtio_blk"}}, script, sizes, module, resizes(version))
		})
	}
}

// resizes reports whether the ublk driver of a kernel can change the size of a block device: that of Linux 6.16 can.
func resizes(version string) bool {
	var major, minor int
	_, err := fmt.Sscanf(version, "%d.%d", &major, &minor)
	return err == nil && (major > 6 || major == 6 && minor >= 16)
}

func bootUblk(t *testing.T, o Options, script string, sizes []int64, module string, resizes bool) {
	t.Helper()
	o.Script = strings.NewReplacer("%[1]s", udmProgram(t), "%[2]s", module, "%[3]v", fmt.Sprint(resizes), "%%", "%").Replace(script)
	for i, size := range sizes {
		o.Disks = append(o.Disks, diskFile(t, fmt.Sprint("d", i), size))
	}
	r := Boot(t, o)
	for line := range strings.Lines(script) {
		if want, ok := strings.CutPrefix(line, "echo "); ok && !strings.HasPrefix(want, "3 ") && !strings.Contains(r.Output, want) {
			t.Errorf("%q is missing in\n%s", want, r.Output)
		}
	}
}
