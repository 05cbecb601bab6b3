//go:build linux

package csi

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"udm/containers/internal/rig"
)

var killing = flag.Bool("killing", false, "kill the daemon between any two calls of csi-sanity, not before each eighth")

// sanity is the conformance suite of CSI.
const sanity = "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity@v5.6.0"

// TestSanity runs the suite. Each call has a driver of its own: the one before is gone with
// all that it had in memory. The daemon is killed between calls, too.
func TestSanity(t *testing.T) {
	n := newNode(t, "node-1")
	calls := 0
	address := n.serve(func() {
		if calls++; *killing || calls%8 == 0 {
			n.Kill()
			n.Start()
		}
		n.open("node-1", n.Client)
		n.Peers = map[string]string{"node-2": ""} // the suite cannot compare topologies of snapshots
	})
	mutable := filepath.Join(n.dir, "mutable.yaml")
	n.ok(os.WriteFile(mutable, []byte("writeIOPS: \"100000\"\n"), 0o600))
	out, err := exec.Command(rig.Tool(t, sanity), "--csi.endpoint", address, "--csi.mountdir", filepath.Join(n.dir, "mount"),
		"--csi.stagingdir", filepath.Join(n.dir, "stage"), "--csi.testvolumemutableparameters", mutable,
		"--csi.testvolumesize", "1073741824", "--csi.testvolumeexpandsize", "2147483648", "--csi.testnodevolumeattachlimit", "--ginkgo.v", "--ginkgo.no-color").CombinedOutput()
	t.Log(summary(string(out)))
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if left := n.Objects(t, devicePrefix); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
}

// summary is the lines of the suite's output that tell what was skipped, and how it ended.
func summary(out string) string {
	var lines []string
	for line := range strings.Lines(out) {
		if strings.Contains(line, "[SKIPPED]") || strings.Contains(line, " Passed ") || strings.HasPrefix(line, "Ran ") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return strings.Join(lines, "\n")
}
