package run

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"udm/test/need"
)

// TestDocument runs the scripts of docs/run.md.
func TestDocument(t *testing.T) {
	need.Tools(t, "lvm", "mkfs.ext4", "parted", "mkswap")
	text, err := os.ReadFile("../../docs/run.md")
	if err != nil {
		t.Fatal(err)
	}
	scripts := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(scripts) != 2 {
		t.Fatalf("%d scripts", len(scripts))
	}
	r := newRig(t)
	r.do(`mkdir rootfs; echo hello >rootfs/greeting`)
	if out := r.do(scripts[0][1]); !strings.Contains(out, "root") || !strings.Contains(out, "swap") {
		t.Errorf("%s", out)
	}
	out := r.do(`$UDM run --disk sda=disk.img -- sh -ec 'vgchange -q -ay vg; debugfs -R "cat greeting" /dev/vg/root; blkid -o value -s TYPE /dev/vg/swap'`)
	if !strings.Contains(out, "hello") || !strings.HasSuffix(out, "swap") {
		t.Errorf("%s", out)
	}
	if !testing.Short() {
		r.do(scripts[1][1])
	}
}

// TestPrograms uses the devices with many programs.
func TestPrograms(t *testing.T) {
	if testing.Short() {
		return // TestDocument uses some of them
	}
	need.Tools(t, "mkfs.ext4", "mkfs.xfs", "mkfs.btrfs", "xfs_repair", "parted", "sfdisk", "fio", "qemu-img", "lsblk", "blkid", "wipefs", "blkdiscard", "resize2fs", "cryptsetup", "integritysetup", "veritysetup")
	r := newRig(t)
	const device = `dmsetup create d --table "0 1048576 linear /dev/sda 2048"; D=/dev/mapper/d; `
	for name, script := range map[string]string{
		"ext4":   `mkfs.ext4 -q $D 200M; e2fsck -fn $D; resize2fs $D; e2fsck -fn $D`,
		"xfs":    `mkfs.xfs -q $D; xfs_repair -n $D`,
		"btrfs":  `mkfs.btrfs -q -f $D; btrfs check $D`,
		"parted": `parted -s $D mklabel gpt mkpart a 1MiB 10MiB; parted -s $D print; parted -s /dev/sda mklabel msdos`,
		"sfdisk": `echo 'start=2048, size=4096' | sfdisk -q $D; sfdisk -d $D | grep -q size=.*4096`,
		"blkid":  `mkfs.ext4 -q -L mark $D; blkid -p $D; test "$(blkid -o value -s LABEL $D)" = mark; wipefs -a $D; ! blkid -p $D`,
		"lsblk":  `test "$(lsblk -nro NAME,TYPE,SIZE | tr '\n' ' ')" = "sda disk 1G d dm 512M "`,
		"dd":     `dd if=/dev/urandom of=x bs=1M count=4 status=none; dd if=x of=$D bs=1M oflag=direct status=none; dd if=$D of=y bs=64k count=64 iflag=direct status=none; cmp x y; cmp -n 4M x $D`,
		"mmap":   fmt.Sprintf(fioJob, "mmap", "0 --do_verify=0") + "; " + fmt.Sprintf(fioJob, "psync", "0 --verify_only"), // fio discards a block device when it maps it
		"libaio": fmt.Sprintf(fioJob, "libaio", "1"),
		"psync":  fmt.Sprintf(fioJob, "psync", "1"),
		"qemu":   `qemu-img convert -n -O raw x $D; qemu-img convert -O qcow2 $D z.qcow2; qemu-img compare x $D 2>&1 | grep -q -e identical -e "content is"`,
		"discard": `dd if=/dev/urandom of=$D bs=1M count=8 status=none; blkdiscard -o 1M -l 2M $D; cmp -i 1M -n 2M $D /dev/zero; ! cmp -s -n 1M $D /dev/zero
			blkdiscard -z -o 4M -l 1M $D; cmp -i 4M -n 1M $D /dev/zero; ! blkdiscard -o 1 -l 512 $D`,
		"luks1":     fmt.Sprintf(luksJob, "--type luks1 --pbkdf-force-iterations 1000"),
		"luks2":     fmt.Sprintf(luksJob, "--type luks2 --sector-size 4096 --pbkdf pbkdf2 --pbkdf-force-iterations 1000"),
		"luks-tags": fmt.Sprintf(luksJob, "--type luks2 --integrity hmac-sha256 --integrity-no-wipe --pbkdf pbkdf2 --pbkdf-force-iterations 1000"),
		"integrity": `O="--integrity hmac-sha256 --integrity-key-size 32 --integrity-key-file x --journal-crypt cbc-aes --journal-crypt-key-size 32 --journal-crypt-key-file x
				--journal-integrity hmac-sha256 --journal-integrity-key-size 32 --journal-integrity-key-file x"
			dmsetup create s --table "0 65536 linear /dev/sda 2048"; integritysetup -q format $O /dev/mapper/s >/dev/null; integritysetup open $O /dev/mapper/s i
			dd if=x of=/dev/mapper/i bs=64k count=32 oflag=direct status=none; integritysetup status i | grep -q "mode:.*read/write"; integritysetup close i
			integritysetup open $O /dev/mapper/s i; cmp -n 2M x /dev/mapper/i; integritysetup close i`,
		"verity": `dmsetup create s --table "0 65536 linear /dev/sda 2048"; dmsetup create h --table "0 8192 linear /dev/sda 1048576"; dd if=x of=/dev/mapper/s bs=1M count=4 status=none
			R=$(veritysetup format /dev/mapper/s /dev/mapper/h | sed -n "s/Root hash: *//p"); veritysetup open /dev/mapper/s v /dev/mapper/h $R; cmp -n 4M x /dev/mapper/v
			veritysetup status v | grep -q "status: *verified"; veritysetup close v; veritysetup verify /dev/mapper/s /dev/mapper/h $R`,
		"sizes": `test "$(blockdev --getss --getpbsz --getsize64 --getro --getra $D | tr '\n' ' ')" = "512 512 536870912 0 256 "; blockdev --setra 512 $D; test "$(blockdev --getra $D)" = 512`,
	} {
		t.Run(name, func(t *testing.T) {
			sub := *r
			sub.TB = t
			sub.do(`rm -f disk.img z.qcow2; truncate -s 1G disk.img; head -c 5000000 /dev/urandom >x; $UDM run --private --disk sda=disk.img -- bash -ec '` + device + strings.ReplaceAll(script, "'", `'\''`) + `'`)
		})
	}
}

// luksJob has cryptsetup make a disk and open it.
const luksJob = `printf pass >p; cryptsetup -q luksFormat %s --key-file p $D; cryptsetup open --key-file p $D c; dd if=x of=/dev/mapper/c bs=64k count=32 oflag=direct status=none
	cryptsetup status c | grep -q "mode:.*read/write"; cryptsetup close c; cryptsetup open --key-file p $D c; cmp -n 2M x /dev/mapper/c; cryptsetup close c`

const fioJob = `fio --name=x --filename=$D --ioengine=%s --direct=%s --rw=randwrite --bs=16k --size=8M --verify=crc32c --iodepth=8 --minimal >/dev/null`
