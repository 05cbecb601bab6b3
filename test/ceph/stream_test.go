//go:build ceph

package ceph

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"udm/test/need"
	"udm/test/program"
)

// rig is a daemon beside the cluster.
type rig struct {
	*testing.T
	env []string
}

// newRig starts a daemon. IMAGE is the image in its scripts.
func newRig(t *testing.T, image string) *rig {
	need.Tools(t, "rbd", "qemu-io", "nbdcopy", "cmp", "bash")
	dir := t.TempDir()
	bin := filepath.Dir(program.BuildWith(t, "udm/cmd/udm", "ceph"))
	r := &rig{t, append(os.Environ(), "UDM_ROOT="+dir+"/r", "DIR="+dir, "PATH="+bin+":"+os.Getenv("PATH"), "IMAGE="+image)}
	d := exec.Command(filepath.Join(bin, "udm"), "daemon")
	d.Env = r.env
	log, err := d.StderrPipe()
	if err == nil {
		err = d.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(log)
	for lines.Scan() && !strings.Contains(lines.Text(), "msg=ready") {
		t.Log(lines.Text())
	}
	t.Cleanup(func() {
		_ = d.Process.Signal(syscall.SIGTERM) // it may have ended, which Wait tells
		for lines.Scan() {
			t.Log(lines.Text())
			if m := replaced.FindStringSubmatch(lines.Text()); m != nil {
				pid, _ := strconv.Atoi(m[1])
				_ = syscall.Kill(pid, syscall.SIGTERM)
			}
		}
		if err := d.Wait(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// replaced is the line in the log of a daemon that has handed over.
var replaced = regexp.MustCompile(`msg=replaced pid=(\d+)`)

// sh runs a script, which must succeed.
func (r *rig) sh(script string) {
	r.Helper()
	const functions = `set -e -o pipefail
		get() { nbdcopy "nbd+unix:///$1?socket=$UDM_ROOT/nbd.sock" -; }
		io() { local d=$1; shift; qemu-io -f raw "$@" "nbd+unix:///$d?socket=$UDM_ROOT/nbd.sock"; }
		same() { rbd export --no-progress $IMAGE@$1 - | cmp - <(get $2); }
`
	c := exec.Command("bash", "-c", functions+script)
	c.Env = r.env
	if out, err := c.CombinedOutput(); err != nil {
		r.Fatalf("%s\n%v\n%s", script, err, bytes.TrimSpace(out))
	}
}

// Snapshots of a volume go to Ceph by rbd import-diff, through a pipe and from files,
// one by one and joined by rbd merge-diff; and what rbd export-diff writes comes back,
// equal.
func TestStreamsToCephAndBack(t *testing.T) {
	r := newRig(t, newImage(t, "64M"))
	r.sh(`udm pool create p --size 256M
		udm volume create p v --size 64M
		io v -c 'write -P 1 0 8M' -c 'write -P 1 10M 64k'
		udm snapshot v monday
		io v -c 'write -P 2 100k 1k' -c 'write -P 2 20M 128k' -c 'discard 1M 64k'
		udm snapshot v tuesday
		udm resize v --size 80M
		io v -c 'write -P 5 70M 1M' -c 'discard 10M 64k'
		udm snapshot v wednesday
		udm send --from monday tuesday > $DIR/1
		udm send --from tuesday wednesday > $DIR/2`)
	r.sh(`udm send monday | rbd import-diff --no-progress - $IMAGE
		udm send --from monday tuesday | rbd import-diff --no-progress - $IMAGE
		rbd import-diff --no-progress $DIR/2 $IMAGE
		same monday monday; same tuesday tuesday; same wednesday wednesday`)
	r.sh(`udm pool create q --size 256M
		rbd bench --io-type write --io-size 4K --io-total 2M --io-pattern rand $IMAGE
		rbd snap create --no-progress $IMAGE@thursday
		rbd export-diff --no-progress $IMAGE@monday - | udm receive --pool q --unsealed c-monday
		rbd export-diff --no-progress --from-snap monday $IMAGE@thursday - | udm receive --unsealed --base c-monday c-thursday
		same monday c-monday; same thursday c-thursday
		rbd merge-diff --no-progress $DIR/1 $DIR/2 $DIR/12
		udm receive --unsealed --base c-monday c-wednesday < $DIR/12
		same wednesday c-wednesday
		! rbd export-diff --no-progress $IMAGE@monday - | udm receive --pool q c-none`)
}
