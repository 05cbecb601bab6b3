package run

import (
	"testing"

	"udm/test/need"
)

// lvm2 makes a mirror, moves a volume that is in use to another disk, and loses a copy.
const mirrorScript = `set -e
pvcreate -q -q /dev/sda /dev/sdb /dev/sdc
vgcreate -q -q -s 512k vg /dev/sda /dev/sdb /dev/sdc
lvcreate -q -q -y -Wn -Zn -n moved -L 8M vg /dev/sda
head -c 8M /dev/urandom >content
dd if=content of=/dev/vg/moved bs=1M status=none
pvmove -q -q -i 1 /dev/sda /dev/sdb
cmp content /dev/vg/moved
lvs --noheadings -o lv_name,devices vg | tr -d ' '
lvcreate -q -q -y -Wn -Zn --type mirror -m 1 -n twice -L 8M vg /dev/sda /dev/sdb /dev/sdc
dd if=content of=/dev/vg/twice bs=1M status=none
until [ "$(lvs --noheadings -o copy_percent vg/twice | tr -d ' ')" = 100.00 ]; do :; done
dmsetup table vg-twice | cut -d' ' -f 3-5,7,8,10,12-
lvconvert -q -q -y -m 0 vg/twice /dev/sda
cmp content /dev/vg/twice
dmsetup table vg-twice | cut -d' ' -f 3
`

func TestMirror(t *testing.T) {
	if testing.Short() {
		return // a minute on a busy machine
	}
	need.Tools(t, "lvm", "dmsetup")
	r := newRig(t)
	r.do("truncate -s 32M a b c\ncat >script.sh <<'END'\n" + mirrorScript + "END")
	r.want(`$UDM run --private --as-root --disk sda=a --disk sdb=b --disk sdc=c -- sh script.sh 2>errors || { cat errors; exit 1; }`, `
moved/dev/sdb(0)
mirror disk 2 4096 2 0 0 1 handle_errors
linear`)
}
