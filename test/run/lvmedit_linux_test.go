package run

import (
	"strings"
	"testing"

	"udm/test/need"
)

// TestNativeGroup lets lvm2 judge a group that udm lvm made and changed: it is sound, it
// is activated, lvm2 goes on with it, and udm after that.
func TestNativeGroup(t *testing.T) {
	if testing.Short() {
		return // TestDocument uses lvm2, too
	}
	need.Tools(t, "lvm", "thin_check")
	r := newRig(t)
	r.do(`truncate -s 256M a.img b.img
		$UDM lvm vgcreate -s 1M vg a.img
		$UDM lvm vgextend vg a.img b.img
		lvm() { cmd=$1; shift; $UDM lvm $cmd "$@" a.img b.img; }
		lvm lvcreate -L 10M -n root vg
		lvm lvcreate -L 8M -i 2 -n wide vg
		lvm lvcreate -T -L 50M vg/pool
		lvm lvcreate -V 1G -n thin -T vg/pool
		lvm lvcreate -s -n before vg/thin
		lvm lvcreate -s -L 2M -n old vg/root
		lvm lvextend -L +10M --poolmetadatasize +2M vg/pool
		lvm lvrename vg/pool tank
		lvm lvremove vg/thin
		lvm vgrename vg server`)
	out := r.do(`cat >judge.sh <<'END'
		set -e
		vgck server; pvck -q /dev/sda; pvck -q /dev/sdb
		vgchange -q -ay -K server
		dmsetup status server-tank-tpool | cut -d' ' -f4
		lvcreate -q -V 100M -n more -T server/tank
		lvextend -q -L +4M server/wide
		lvremove -q -y server/old
		vgchange -q -an server
		lvs --noheadings -o lv_name,lv_size,transaction_id server
END
		$UDM run --private --as-root --disk sda=a.img --disk sdb=b.img -- sh judge.sh 2>&1 | grep -v WARNING
		$UDM lvm lvcreate -s -n last server/more a.img b.img
		$UDM lvm lvremove server/before a.img b.img
		$UDM run --private --as-root --disk sda=a.img --disk sdb=b.img -- sh -ec 'vgck server; vgchange -q -ay -K server; vgchange -q -an server' 2>&1
		$UDM lvm scan a.img b.img`)
	out = strings.Join(strings.Fields(out), " ")
	for _, want := range []string{"before 1.00g 1 ", "more 100.00m 3 ", "wide 12.00m ", "tank 60.00m 4 ", "server last 100M thin more tank"} {
		if !strings.Contains(out, want) {
			t.Errorf("there is no %q in\n%s", want, out)
		}
	}
	for _, bad := range []string{"WARNING", "rror", "before 1G"} {
		if strings.Contains(out, bad) {
			t.Errorf("%q in\n%s", bad, out)
		}
	}
}
