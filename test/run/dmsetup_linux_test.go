package run

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
)

// each runs dmsetup with the lines of a file and prints what it says, and its exit code.
const each = `while IFS= read -r line; do
	echo "=== $line"
	eval "$DMSETUP ${line#\~}" </dev/null 2>err; echo "exit code $?"
	grep -v '^/dev/mapper/.*: open failed: No such file' err
done <"$1"`

// TestDmsetup runs the same command lines through Debian's dmsetup, under udm run, and
// through udm dmsetup. Output and exit code are the same; of lines that begin with ~,
// whose output is help or tells the read-ahead of a device without a node, the exit code.
func TestDmsetup(t *testing.T) {
	r := newRig(t)
	lines, err := os.ReadFile("testdata/dmsetup.txt")
	r.must(err)
	want := 200
	if testing.Short() {
		want = 12
		lines = bytes.Join(bytes.SplitAfterN(lines, []byte("\n"), want+1)[:want], nil)
	}
	r.must(os.WriteFile(r.dir+"/lines", lines, 0o644))
	r.must(os.WriteFile(r.dir+"/each", []byte(each), 0o644))
	theirs := r.do(`DMSETUP=/sbin/dmsetup $UDM run --private --major 254 -- sh each lines`)
	r.daemon("root")
	ours := r.do(`DMSETUP="$UDM dmsetup" sh each lines`)
	a, b := blocks(theirs), blocks(ours)
	if len(a) != len(b) || len(a) < want {
		t.Fatalf("%d and %d answers", len(a), len(b))
	}
	for i := range a {
		if strings.HasPrefix(a[i], "~") {
			a[i], b[i] = exitLine(a[i]), exitLine(b[i])
		}
		if a[i] != b[i] {
			t.Errorf("dmsetup:\n%s\nudm dmsetup:\n%s", a[i], b[i])
		}
	}
}

func exitLine(block string) string { return block[strings.Index(block, "exit code"):][:11] }

func blocks(text string) []string { return strings.Split(text, "=== ")[1:] }

// daemon starts a daemon of the user at a root below the user's directory. It ends with
// the test.
func (r *rig) daemon(root string) {
	r.Helper()
	cmd := r.command("sh", "-c", fmt.Sprintf(`exec "$UDM" daemon --root %s/%s`, r.dir, root))
	cmd.Stderr = r.Output()
	r.must(cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	r.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt) // it has ended
		<-ended
	})
	for code := -1; code != 0; code, _ = r.try(`$UDM ls --root ` + r.dir + `/` + root) {
		select {
		case err := <-ended:
			ended <- err
			r.Fatal("the daemon ended:", err)
		default:
		}
	}
}
