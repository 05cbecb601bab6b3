package run

import (
	"flag"
	"fmt"
	"testing"

	"udm/test/need"
)

var looks = flag.Int("looks", 30, "number of times that lvm looks for its disks in TestSeesItsDisks")

// TestSeesItsDisks: lvm finds all of its disks each time, while others make and remove
// devices, for which /sys, /proc and /dev change all the time.
func TestSeesItsDisks(t *testing.T) {
	if testing.Short() {
		return // a minute; TestDocument uses lvm2, too
	}
	need.Tools(t, "lvm")
	r := newRig(t)
	r.want(fmt.Sprintf(`truncate -s 512M a.img
		cat >look.sh <<'END'
		set -e
		for n in 1 2 3; do dmsetup create pv$n --table "0 65536 linear /dev/sda $((n * 65536))"; done
		vgcreate -q vg /dev/mapper/pv1 /dev/mapper/pv2 /dev/mapper/pv3 >/dev/null
		while [ ! -e stop ]; do
			dmsetup create other --table "0 8 zero"; dmsetup rename other another; dmsetup remove another
		done & changes=$!
		for n in $(seq %d); do
			found=$(pvs --noheadings -o pv_name,vg_name,major 2>/dev/null | sort | tr -s ' \n' ' ')
			major=$(dmsetup info -c --noheadings -o major pv1)
			test "$found" = " /dev/mapper/pv1 vg $major /dev/mapper/pv2 vg $major /dev/mapper/pv3 vg $major " || echo "look $n: $found"
		done
		touch stop; wait $changes; rm stop
END
		$UDM run --private --as-root --disk sda=a.img -- bash look.sh`, *looks), "")
}
