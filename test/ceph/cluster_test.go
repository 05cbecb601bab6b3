//go:build ceph

package ceph

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"udm/test/program"
)

// cluster is a monitor and an OSD.
type cluster struct {
	dir, conf string
	mon, osd  *exec.Cmd
}

// ceph is the cluster of all tests.
var ceph *cluster

// The kernel ends the daemons when the thread that has started them ends, which must
// therefore be that of the process.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	var err error
	if ceph, err = startCluster(); err != nil {
		fmt.Fprintln(os.Stderr, "starting Ceph:", err)
		ceph.stop()
		os.Exit(1)
	}
	program.Main(m, ceph.stop)
}

// settings are those of a cluster of one OSD without copies, small.
const settings = `[global]
fsid = %[1]s
mon_host = [v2:127.0.0.1:%[3]d,v1:127.0.0.1:%[4]d]
mon_initial_members = a
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_ipv6 = false
keyring = %[2]s/keyring
run_dir = %[2]s
admin_socket = %[2]s/$name.asok
pid_file =
log_file = %[2]s/$name.log
crash_dir = %[2]s/crash
mon_data = %[2]s/mon
osd_data = %[2]s/osd
log_to_stderr = false
auth_allow_insecure_global_id_reclaim = false
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_data_avail_warn = 1
mon_data_avail_crit = 1
mon_warn_on_pool_no_redundancy = false
mon_max_pg_per_osd = 1000
osd_objectstore = memstore
memstore_device_bytes = 4294967296
osd_op_num_shards = 2
osd_op_num_threads_per_shard = 1
[client]
log_file =
admin_socket =
`

func startCluster() (c *cluster, err error) {
	c = &cluster{}
	if c.dir, err = os.MkdirTemp("", "udm-ceph"); err != nil {
		return c, err
	}
	c.conf = filepath.Join(c.dir, "ceph.conf")
	fsid, err := os.ReadFile("/proc/sys/kernel/random/uuid")
	if err != nil {
		return c, err
	}
	v1, v2, err := ports()
	if err != nil {
		return c, err
	}
	id := strings.TrimSpace(string(fsid))
	os.Setenv("CEPH_CONF", c.conf)
	if err := os.WriteFile(c.conf, fmt.Appendf(nil, settings, id, c.dir, v2, v1), 0o644); err != nil {
		return c, err
	}
	if err := os.Mkdir(filepath.Join(c.dir, "osd"), 0o755); err != nil {
		return c, err
	}
	key, addr := filepath.Join(c.dir, "keyring"), fmt.Sprintf("[v2:127.0.0.1:%d,v1:127.0.0.1:%d]", v2, v1)
	steps := [][]string{
		{"ceph-authtool", "-C", key, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *"},
		{"ceph-authtool", key, "--gen-key", "-n", "client.admin", "--cap", "mon", "allow *", "--cap", "osd", "allow *"},
		{"ceph-authtool", key, "--gen-key", "-n", "osd.0", "--cap", "mon", "allow profile osd", "--cap", "osd", "allow *"},
		{"monmaptool", "--create", "--addv", "a", addr, "--fsid", id, "--enable-all-features", c.dir + "/monmap"},
		{"ceph-mon", "--mkfs", "-i", "a", "--monmap", c.dir + "/monmap", "--keyring", key},
	}
	for _, s := range steps {
		if err := run(s...); err != nil {
			return c, err
		}
	}
	if c.mon, err = start("ceph-mon", "-i", "a"); err != nil {
		return c, err
	}
	osd := strings.TrimSpace(string(fsid))
	for _, s := range [][]string{
		{"ceph", "osd", "new", osd},
		{"ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd},
	} {
		if err := run(s...); err != nil {
			return c, err
		}
	}
	if c.osd, err = start("ceph-osd", "-i", "0"); err != nil {
		return c, err
	}
	for _, s := range [][]string{
		{"ceph", "osd", "pool", "create", "rbd", "8", "8"}, {"rbd", "pool", "init", "rbd"}, // waits for the OSD
	} {
		if err := run(s...); err != nil {
			return c, err
		}
	}
	return c, nil
}

// ports are two free ports.
func ports() (a, b int, err error) {
	x, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, 0, err
	}
	defer x.Close()
	y, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, 0, err
	}
	defer y.Close()
	return x.Addr().(*net.TCPAddr).Port, y.Addr().(*net.TCPAddr).Port, nil
}

func run(args ...string) error {
	_, err := output(args...)
	return err
}

func output(args ...string) (string, error) {
	c := exec.Command(args[0], args[1:]...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return strings.TrimSpace(string(out)), nil
}

// start starts a daemon, which ends with this process.
func start(name string, args ...string) (*exec.Cmd, error) {
	c := exec.Command(name, append(args, "-f")...)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c, c.Start()
}

// stop ends the daemons and removes what they have stored.
func (c *cluster) stop() {
	for _, d := range []*exec.Cmd{c.osd, c.mon} {
		if d != nil && d.Process != nil {
			_ = d.Process.Kill()
			_ = d.Wait()
		}
	}
	os.RemoveAll(c.dir)
}

// rbd runs the command of that name.
func rbd(t testing.TB, args ...string) string {
	t.Helper()
	out, err := output(append([]string{"rbd"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// newImage makes an image, which is removed at the end, and returns POOL/IMAGE.
func newImage(t testing.TB, size string) string {
	t.Helper()
	name := "rbd/" + strings.NewReplacer("/", ".", " ", ".").Replace(t.Name())
	for i := 0; ; i++ {
		image := fmt.Sprint(name, i)
		err := run("rbd", "create", "--size", size, image)
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == int(syscall.EEXIST) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { removeImage(t, image) })
		return image
	}
}

func removeImage(t testing.TB, image string) {
	rbd(t, "snap", "purge", image)
	rbd(t, "rm", image)
}

// holder is the address of the client that has the lock of an image.
func holder(t testing.TB, image string) string {
	t.Helper()
	var locks []struct{ Address string }
	if err := json.Unmarshal([]byte(rbd(t, "lock", "ls", "--format", "json", image)), &locks); err != nil || len(locks) != 1 {
		t.Fatal(locks, err)
	}
	return locks[0].Address
}
