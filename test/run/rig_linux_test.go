// Package run runs unmodified programs under udm run, as an ordinary user without any
// capability: Debian's dmsetup beside udm dmsetup, lvm2, mkfs and others, the traps of
// interception, and the own tests of lvm2 and dmtest.
//
// As root, the tests become the user nobody in a mount namespace of their own, where
// /dev/fuse has the usual rights.
package run

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"udm/test/need"
	"udm/test/program"
)

func TestMain(m *testing.M) { program.Main(m) }

const nobody = "65534"

// asUser is a script that becomes nobody. $1 is the directory of the tests, the rest is
// the command.
const asUser = `set -e
	mount --make-rprivate /
	mount --bind $1/fuse /dev/fuse
	dir=$1; shift
	exec setpriv --reuid ` + nobody + ` --regid ` + nobody + ` --clear-groups --inh-caps=-all \
		env -C $dir/tmp TMPDIR=$dir/tmp HOME=$dir/tmp "$@"`

// rig is a place for programs of an ordinary user.
type rig struct {
	testing.TB
	dir string // of the user
	udm string
}

func newRig(t testing.TB) *rig {
	need.Tools(t, "fusermount3", "dmsetup")
	top, err := os.MkdirTemp("", "udm-run")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	r := &rig{TB: t, dir: filepath.Join(top, "tmp"), udm: filepath.Join(top, "udm")}
	bin, err := os.ReadFile(program.Build(t, "udm/cmd/udm"))
	r.must(err)
	r.must(os.WriteFile(r.udm, bin, 0o755))
	r.must(os.Chmod(top, 0o755))
	r.must(os.Mkdir(r.dir, 0o700))
	if os.Geteuid() == 0 {
		need.Tools(t, "unshare", "setpriv")
		r.must(os.Chown(r.dir, 65534, 65534))
		r.must(unix.Mknod(top+"/fuse", unix.S_IFCHR, int(unix.Mkdev(10, 229))))
		r.must(os.Chmod(top+"/fuse", 0o666))
	} else {
		need.Open(t, "/dev/fuse")
	}
	return r
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// command is a command of the user.
func (r *rig) command(args ...string) *exec.Cmd {
	if os.Geteuid() == 0 {
		args = append([]string{"unshare", "-m", "sh", "-c", asUser, "sh", filepath.Dir(r.dir)}, args...)
	}
	cmd := exec.CommandContext(r.Context(), args[0], args[1:]...)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "UDM="+r.udm, "UDM_ROOT="+r.dir+"/root", "LVM_SUPPRESS_FD_WARNINGS=1", "XDG_RUNTIME_DIR="+r.dir,
		"PATH="+filepath.Dir(r.udm)+":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	return cmd
}

// try runs a shell script as the user and returns its exit code and what it prints.
func (r *rig) try(script string) (code int, out string) {
	r.Helper()
	b, err := r.command("bash", "-c", script).CombinedOutput()
	var x *exec.ExitError
	if err != nil && !errors.As(err, &x) {
		r.Fatal(err)
	}
	if x != nil {
		code = x.ExitCode()
	}
	return code, string(bytes.TrimSpace(b))
}

// do is try for a script that must succeed.
func (r *rig) do(script string) string {
	r.Helper()
	code, out := r.try("set -e\n" + script)
	if code != 0 {
		r.Fatalf("%s\nends with %d and prints\n%s", script, code, out)
	}
	return out
}

// want runs a script that must print exactly this.
func (r *rig) want(script, want string) {
	r.Helper()
	if got := r.do(script); got != strings.TrimSpace(want) {
		r.Errorf("%s\nprints\n%s\nwant\n%s", script, got, want)
	}
}
