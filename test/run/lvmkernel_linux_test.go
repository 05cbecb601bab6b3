package run

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"udm/test/kernel"
	"udm/test/need"
)

var (
	firstGroup = flag.Uint64("firstgroup", 0, "seed of the first group of TestKernelGroups")
	perBoot    = flag.Int("perboot", 10, "number of groups of TestKernelGroups in a boot")
)

// kernelModules are those that volumes of TestKernelGroups need.
var kernelModules = []string{"loop", "dm-mod", "dm-zero", "dm-snapshot", "dm-thin-pool", "dm-mirror", "raid1", "dm-raid"}

// TestKernelGroups is TestRandomGroups with lvm2 in the real kernel. Its groups have
// volumes of types that udm does not make, too, which stay as they are. In between, udm
// activates the groups, and compares and changes what is in the volumes.
func TestKernelGroups(t *testing.T) {
	kernel.Need(t)
	need.Tools(t, "lvm", "thin_check", "losetup")
	r := newRig(t)
	for n := 0; n < *groups; n += *perBoot {
		var list []*kernelGroup
		for i := n; i < min(n+*perBoot, *groups); i++ {
			list = append(list, newKernelGroup(r, *firstGroup+uint64(i)))
		}
		kernelRound(t, r, list)
	}
}

// kernelRound lets the kernel see groups twice.
func kernelRound(t *testing.T, r *rig, list []*kernelGroup) {
	each := func(part string, do func(*kernelGroup)) {
		for _, g := range list {
			g.failed = g.failed || !t.Run(fmt.Sprint(g.seed, part), func(t *testing.T) {
				if sub := *r; !g.failed {
					sub.TB = t
					g.rig = &sub
					do(g)
				}
			})
		}
	}
	each("begin", (*kernelGroup).first)
	bootGroups(t, r, list)
	each("between", (*kernelGroup).second)
	bootGroups(t, r, list)
	each("end", (*kernelGroup).last)
	for _, g := range list {
		if !g.failed {
			r.do("rm -f " + g.prefix + "*")
		}
	}
}

// bootGroups runs the scripts of groups in one boot.
func bootGroups(t *testing.T, r *rig, list []*kernelGroup) {
	t.Helper()
	script := lvmInKernel
	for _, g := range list {
		if !g.failed {
			script += "group " + g.prefix + "\n"
		}
	}
	kernel.Boot(t, kernel.Options{Modules: kernelModules, Script: script, Dir: r.dir})
}

// lvmInKernel has the function that runs the script of a group, and keeps what it prints.
var lvmInKernel = kernel.LVM("/dev/loop") + `group() {
	n=0
	for f in $OUT/$1[ab]?.img; do
		losetup /dev/loop$n $f
		n=$((n + 1))
	done
	sh $OUT/$1script >$OUT/$1answers 2>&1 || echo "exit code $?" >>$OUT/$1answers
	dmsetup remove_all -f
	losetup -D
}
`

// kernelGroup is a random group whose lvm2 runs in a kernel.
type kernelGroup struct {
	*randomGroup
	seed   uint64
	failed bool
}

func newKernelGroup(r *rig, seed uint64) *kernelGroup {
	g := &kernelGroup{randomGroup: newRandomGroup(r, seed), seed: seed}
	g.prefix = fmt.Sprintf("%d-", seed)
	g.device = func(group string, disk int) string {
		return fmt.Sprint("/dev/loop", strings.Index("ab", group)*g.disks+disk)
	}
	return g
}

// first is what udm does before the first boot.
func (g *kernelGroup) first() {
	first := g.begin()
	g.native("a", first)
	g.write(g.prefix+"script", g.questions(g.pvcreate()+g.commandsOf("b", first)+g.extras(), g.fill()))
}

// second is what udm does between the boots.
func (g *kernelGroup) second() {
	g.answered()
	g.active("--read-only", g.verify())
	g.active("--writable", g.fill())
	second := g.commands(5)
	g.native("b", second)
	g.write(g.prefix+"script", g.questions(g.commandsOf("a", second), g.verify()+g.fill()))
}

// last is what udm does after the second boot.
func (g *kernelGroup) last() {
	g.answered()
	g.active("--read-only", g.verify())
}

// answered judges the answers of a boot.
func (g *kernelGroup) answered() {
	g.Helper()
	answers, err := os.ReadFile(filepath.Join(g.dir, g.prefix+"answers"))
	g.must(err)
	g.judge(string(answers))
}

// active runs a script while udm has both groups active.
func (g *kernelGroup) active(mode, script string) {
	g.Helper()
	if len(g.volumes) == 0 {
		return // there is nothing to activate
	}
	all := `mkdir -p mounted; $UDM daemon --mount mounted 2>daemon.log & trap 'kill $!; wait $!' EXIT
		until $UDM ls >/dev/null 2>&1; do sleep 0.05; done
`
	for _, group := range groupNames {
		all += fmt.Sprintf("$UDM lvm activate -K %s %s %s >/dev/null\n", mode, group, strings.Join(g.images(group), " ")) +
			strings.NewReplacer("VG", group, "DEV", "mounted").Replace(script) +
			"$UDM lvm deactivate " + group + "\n"
	}
	g.do(all)
}

// pvcreate is commands that give the disks of lvm2's group areas of other sizes and numbers
// than udm's, with the same room for extents.
func (g *kernelGroup) pvcreate() string {
	var b strings.Builder
	for i := range g.disks {
		copies := g.rng.IntN(2)
		if i == 0 {
			copies = 1
		}
		fmt.Fprintf(&b, "pvcreate -q --dataalignment 1m --metadatasize %dk --pvmetadatacopies %d %s\n", 100+g.rng.IntN(900), copies, g.device("b", i))
	}
	return b.String()
}

// extras is commands for volumes of other types.
func (g *kernelGroup) extras() string {
	var b strings.Builder
	kinds := []string{"--type error", "--type zero", "--addtag one --addtag two -p r", "-C y", "-r none"}
	if g.members > 1 {
		kinds = append(kinds, "--type mirror -m 1 --mirrorlog core --nosync", "--type raid1 -m 1 --nosync")
	}
	for i := range g.rng.IntN(3) {
		fmt.Fprintf(&b, "lvcreate -q -y -Wn -Zn -L 2M %s -n x%d b\n", kinds[g.rng.IntN(len(kinds))], i)
	}
	return b.String()
}

// TestKernelScripts runs the scripts of lvm2 that are left out on the real kernel, where
// they fail or skip themselves, too, with the same disks.
func TestKernelScripts(t *testing.T) {
	kernel.Need(t)
	if !*allOfLVM {
		return // minutes
	}
	need.Tools(t, "lvm", "gcc", "thin_check", "xz")
	r := newRig(t)
	r.lvmSuite()
	for name := range lvmScripts(t, func(note string) bool { return strings.HasPrefix(note, "-") }) {
		t.Run(name, func(t *testing.T) {
			disk := filepath.Join(t.TempDir(), "disk")
			f, err := os.Create(disk)
			r.must(err)
			r.must(f.Truncate(8 << 30))
			r.must(f.Close())
			script := fmt.Sprintf(lvmScriptInKernel, filepath.Join(filepath.Dir(r.dir), "lvm2-testsuite"), name)
			result := kernel.Boot(t, kernel.Options{Disks: []string{disk}, Modules: append([]string{"raid0", "raid1", "raid10", "raid456", "dm-raid"}, kernel.DefaultModules...), Script: script, Memory: 1024})
			code := strings.TrimSpace(string(tail(result.Output, 1)))
			t.Logf("%s: %s\n%s", name, code, tail(result.Output, 40))
			if code == "exit code 0" {
				t.Error("it passes")
			}
		})
	}
}

// lvmScriptInKernel is lvmScript without udm.
const lvmScriptInKernel = `mkdir -p /run/home/work /run/lock
	[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd
	export LVM_TEST_DIR=/run/home/work TMPDIR=/run/home/work LVM_TEST_DEVDIR=/dev LVM_TEST_BACKING_DEVICE=$D0 LVM_TEST_FLAVOUR=ndev-vanilla
	cd %s
	export PATH=$PWD/lib:$PATH
	bash shell/%s.sh && code=0 || code=$?
	echo "exit code $code"`
