package run

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"udm/test/need"
)

var allOfLVM = flag.Bool("lvm", false, "run all of lvm2's scripts in testdata/lvm2.txt, not only the pinned ones")

// TestLVM runs lvm2's own test scripts, unchanged, on udm's devices.
func TestLVM(t *testing.T) {
	if testing.Short() {
		return // minutes; TestDocument uses lvm2, too
	}
	need.Tools(t, "lvm", "gcc", "thin_check", "xz")
	r := newRig(t)
	r.lvmSuite()
	for name, note := range lvmScripts(t, func(note string) bool { return note == "+" || *allOfLVM && !strings.HasPrefix(note, "-") }) {
		t.Run(name, func(t *testing.T) {
			sub := *r
			sub.TB = t
			size, large := strings.CutPrefix(note, "@")
			if !large {
				size = "8G"
			}
			if code, out := sub.try(fmt.Sprintf(lvmScript, size, name)); code != 0 {
				t.Errorf("exit code %d (200: it skipped itself)\n%s", code, tail(out, 60))
			}
		})
	}
}

// lvmScript gives a script a disk, in which it makes its physical volumes. Files in
// memory may be longer than on most file systems.
const lvmScript = `work=$(mktemp -d); disk=$(mktemp -p /dev/shm); trap 'rm -rf $work $disk' EXIT
	truncate -s %s $disk
	export PATH=$PWD/../lvm2-testsuite/lib:$PATH LVM_TEST_DIR=$work TMPDIR=$work LVM_TEST_DEVDIR=/dev LVM_TEST_BACKING_DEVICE=/dev/bd0 LVM_TEST_FLAVOUR=ndev-vanilla
	$UDM run --private --as-root --dev-files --disk bd0=$disk -- bash -c 'cd ../lvm2-testsuite && exec bash shell/%s.sh' </dev/null`

// lvmSuite puts the suite beside the user's directory.
func (r *rig) lvmSuite() {
	cmd := exec.Command("./lvm2-suite.sh")
	cmd.Stderr = r.Output()
	dir, err := cmd.Output()
	if err != nil {
		need.Missing(r, "lvm2's test suite cannot be fetched: "+err.Error())
	}
	to := filepath.Join(filepath.Dir(r.dir), "lvm2-testsuite")
	out, err := exec.Command("sh", "-c", `cp -a "$1" "$2"; chmod -R a+rX "$2"`, "sh", strings.TrimSpace(string(dir)), to).CombinedOutput()
	if err != nil {
		r.Fatalf("%v: %s", err, out)
	}
}

// lvmScripts returns the scripts whose notes are wanted, with the notes.
func lvmScripts(t *testing.T, wanted func(note string) bool) map[string]string {
	names := map[string]string{}
	text, err := os.ReadFile("testdata/lvm2.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		name, note, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name != "#" && wanted(note) {
			names[name] = note
		}
	}
	if len(names) == 0 {
		t.Fatal("no scripts")
	}
	return names
}

// tail is the end of what a script said; after a failure the suite prints the script itself,
// which is left out.
func tail(text string, lines int) string {
	all := slices.DeleteFunc(strings.Split(text, "\n"), func(l string) bool { return strings.HasPrefix(l, "## Line:") })
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
