//go:build linux

package kernel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"udm/ctl"
	"udm/test/need"
	"udm/test/program"
	"udm/volume"
)

// TestKernelVhostUserDaemon lets the kernel use the daemon's devices over vhost-user: a linear one, a clone and a thin
// volume, each of which grows while it is mounted there.
func TestKernelVhostUserDaemon(t *testing.T) {
	Need(t)
	dir, h := t.TempDir(), newUDM(t)
	client := ctl.NewClient(h.root)
	defer client.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	names := makeGuestDisks(t, client, dir)
	var args []string
	for _, name := range names {
		path := filepath.Join(dir, name+".sock")
		if _, err := client.Export(ctx, ctl.Export{Ref: ctl.Ref{Name: name}, Path: path}); err != nil {
			t.Fatal(err)
		}
		args = append(args, "virtio_uml.device="+path+":2")
	}
	o := Options{Dir: t.TempDir(), Modules: []string{"virtio_blk"}, Args: args, Script: `
		for d in /sys/block/vd?; do
			v=/dev/${d#/sys/block/}
			name=$(cat $d/serial)
			[ $(cut -c35 $d/device/features) = 1 ] # packed rings
			mkfs.ext4 -q -E nodiscard $v
			mkdir $name
			mount -t ext4 $v $name
			head -c 1000000 /dev/urandom >$name/data
			sha256sum <$name/data >sum
			[ $name = clone ] || fstrim $name # snapshots know no discard
			touch $OUT/$name.mounted
			while [ $(cat $d/size) = 32768 ]; do sleep 0.1; done
			resize2fs $v
			head -c 18000000 /dev/zero >$name/more
			umount $name
			e2fsck -fn $v
			mount -t ext4 $v $name
			sha256sum -c sum <$name/data
			echo "$name is well: $(cat $d/size)"
			umount $name
		done`}
	grown := make(chan error, 1)
	go func() { grown <- growGuestDisks(ctx, client, o.Dir, names) }()
	r := Boot(t, o)
	if err := <-grown; err != nil {
		t.Error(err)
	}
	for _, name := range names {
		if !strings.Contains(r.Output, name+" is well: 65536\n") {
			t.Errorf("nothing of %s in\n%s", name, r.Output)
		}
	}
}

// makeGuestDisks makes devices of 16 MiB.
func makeGuestDisks(t *testing.T, client *ctl.Client, dir string) []string {
	t.Helper()
	ctx, image, disk := context.Background(), filepath.Join(dir, "image"), filepath.Join(dir, "disk")
	for path, size := range map[string]int64{image: 16 << 20, disk: 16 << 20} {
		err := os.WriteFile(path, nil, 0o600)
		if err == nil {
			err = os.Truncate(path, size)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := client.Create(ctx, ctl.Create{Name: "linear", Table: "0 32768 linear " + disk + " 0"})
	if err == nil {
		err = client.Clone(ctx, volume.CloneSpec{Base: image, Names: []string{"clone"}})
	}
	if err == nil {
		err = client.CreatePool(ctx, volume.PoolSpec{Name: "pool", Size: 64 << 20})
	}
	if err == nil {
		err = client.CreateVolume(ctx, ctl.CreateVolume{Pool: "pool", Name: "thin", Size: 16 << 20})
	}
	if err != nil {
		t.Fatal(err)
	}
	return []string{"clone", "linear", "thin"}
}

// growGuestDisks doubles each disk when the guest has mounted it.
func growGuestDisks(ctx context.Context, client *ctl.Client, out string, names []string) error {
	left := slices.Clone(names)
	for t := time.NewTicker(50 * time.Millisecond); len(left) > 0; {
		mounted := func(name string) bool {
			_, err := os.Stat(filepath.Join(out, name+".mounted"))
			return err == nil
		}
		if i := slices.IndexFunc(left, mounted); i >= 0 {
			if err := client.Resize(ctx, volume.ResizeSpec{Name: left[i], Size: 32 << 20}); err != nil {
				return err
			}
			left = slices.Delete(left, i, i+1)
			continue
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// guestScript uses file systems on all disks, by steady (%[1]s) and by fio, which verify what they read, while the daemon that serves the
// disks is replaced %[2]d times.
const guestScript = `
mkdir mnt
for d in /sys/block/vd?; do
	name=$(cat $d/serial)
	mkfs.ext4 -q -E nodiscard /dev/${d#/sys/block/}
	mkdir mnt/$name
	mount -t ext4 /dev/${d#/sys/block/} mnt/$name
done
check() { fio --name=v --directory=$1 --size=1M --bs=4k --rw=randwrite --direct=1 --ioengine=psync --verify=crc32c --verify_fatal=1 --thread --output=$2; }
(while [ ! -e over ]; do for dir in mnt/*; do check $dir log; done; done; touch verified) & fio=$!
mkfifo in out
"%[1]s" mnt/* <in >out & steady=$!
exec 3>in 4<out
more() {
	echo more >&3
	read -r line <&4
	case $line in ok*) echo "after $1, longest: ${line#ok } ms";; *) echo "$line"; return 1;; esac
}
more "the start"
for round in $(seq %[2]d); do
	touch $OUT/ask.$round
	while [ ! -e $OUT/done.$round ]; do sleep 0.05; done
	more "an upgrade"
done
touch over
wait $fio
[ -e verified ]
exec 3>&-
read -r line <&4
wait $steady
echo "$line"
for dir in mnt/*; do
	v=$(findmnt -n -o SOURCE $dir)
	umount $dir
	e2fsck -fn $v
done
echo the guest has noticed nothing
`

// fio is a fio beside a guest, which writes to a device of the same daemon and verifies what it reads.
type fio struct {
	t    *testing.T
	name string
	args []string
}

// run has fio go on until over, which is closed.
func (f fio) run(over <-chan struct{}) {
	ios, longest := 0, time.Duration(0)
	for {
		n, took := f.once()
		ios, longest = ios+n, max(longest, took)
		select {
		case <-over:
			f.t.Logf("fio over %s: %d I/Os, the longest took %v", f.name, ios, longest.Round(time.Millisecond))
			return
		default:
		}
	}
}

// once returns how many I/Os there were, and how long the longest took.
func (f fio) once() (ios int, longest time.Duration) {
	path := filepath.Join(f.t.TempDir(), "said")
	out, err := exec.Command("fio", append([]string{"--name=" + f.name, "--rw=randwrite", "--bs=4k", "--size=8M", "--loops=4", "--verify=crc32c", "--verify_fatal=1",
		"--verify_state_save=0", "--thread", "--output-format=json", "--output=" + path}, f.args...)...).CombinedOutput()
	type way struct {
		Total   int                   `json:"total_ios"`
		Latency struct{ Max float64 } `json:"clat_ns"`
	}
	var said struct {
		Jobs []struct {
			Error       int
			Read, Write way
		}
	}
	text, rerr := os.ReadFile(path)
	if err = errors.Join(err, rerr); err == nil {
		_, object, _ := strings.Cut(string(text), "{") // after what it says of its connection
		err = json.Unmarshal([]byte("{"+object), &said)
	}
	if err != nil || len(said.Jobs) != 1 || said.Jobs[0].Error != 0 {
		f.t.Errorf("fio over %s: %v\n%s\n%s", f.name, err, out, text)
		return 0, 0
	}
	j := said.Jobs[0]
	return j.Read.Total + j.Write.Total, time.Duration(max(j.Read.Latency.Max, j.Write.Latency.Max))
}

// hostClients has fio use devices of the daemon over NBD and as a file, until over.
func hostClients(t *testing.T, h *udmHost, client *ctl.Client, dir string, over <-chan struct{}) (wait func()) {
	t.Helper()
	ctx, mnt := context.Background(), filepath.Join(dir, "mnt")
	err := os.Mkdir(mnt, 0o700)
	for _, name := range []string{"remote", "file"} {
		if err == nil {
			err = client.CreateVolume(ctx, ctl.CreateVolume{Pool: "pool", Name: name, Size: 8 << 20})
		}
	}
	if err == nil {
		err = client.Mount(ctx, ctl.Mount{Dir: mnt})
	}
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for _, f := range []fio{
		{t, "NBD", []string{"--ioengine=nbd", "--iodepth=16", "--uri=nbd+unix:///remote?socket=" + filepath.Join(h.root, ctl.NBDSocket)}},
		{t, "FUSE", []string{"--ioengine=psync", "--direct=1", "--filename=" + filepath.Join(mnt, "file")}},
	} {
		all.Go(func() { f.run(over) })
	}
	return all.Wait
}

// TestKernelVhostUserUpgrades replaces the daemon below a kernel that uses its devices over vhost-user, beside others that use
// devices of the same pool over NBD and as files.
func TestKernelVhostUserUpgrades(t *testing.T) {
	Need(t)
	need.Tools(t, "fio")
	dir, h := t.TempDir(), newUDM(t)
	client := ctl.NewClient(h.root)
	defer client.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var args []string
	for _, name := range makeGuestDisks(t, client, dir) {
		path := filepath.Join(dir, name+".sock")
		if _, err := client.Export(ctx, ctl.Export{Ref: ctl.Ref{Name: name}, Path: path}); err != nil {
			t.Fatal(err)
		}
		args = append(args, "virtio_uml.device="+path+":2")
	}
	rounds := number(*upgrades, 2, 20)
	o := Options{Dir: t.TempDir(), Modules: []string{"virtio_blk"}, Args: args,
		Script: fmt.Sprintf(guestScript, program.Build(t, "udm/test/kernel/steady"), rounds)}
	over, replaced := make(chan struct{}), make(chan error, 1)
	wait := hostClients(t, h, client, dir, over)
	go func() { replaced <- replaceWhenAsked(ctx, h, o.Dir, rounds) }()
	r := Boot(t, o)
	close(over)
	wait()
	if err := <-replaced; err != nil {
		t.Error(err)
	}
	if !strings.Contains(r.Output, "the guest has noticed nothing") {
		t.Errorf("it has:\n%s", r.Output)
	}
	t.Logf("after an upgrade, the longest I/O in milliseconds: %v", longest(t, r.Output, "an upgrade"))
	t.Log(regexp.MustCompile(`ok, .*`).FindAllString(r.Output, -1))
	if err := endDaemon(h.root); err != nil {
		t.Error(err)
	}
}

// replaceWhenAsked replaces the daemon each time the guest asks.
func replaceWhenAsked(ctx context.Context, h *udmHost, dir string, rounds int) error {
	for round := 1; round <= rounds; round++ {
		for !exists(filepath.Join(dir, fmt.Sprint("ask.", round))) {
			select {
			case <-time.After(10 * time.Millisecond): // hostfs tells nobody that there is a file
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		out, err := exec.CommandContext(ctx, h.program, "daemon", "--replace", "--root", h.root).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("done.", round)), nil, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// endDaemon ends the daemon of a root, which may have replaced the one that was started.
func endDaemon(root string) error {
	text, err := os.ReadFile(filepath.Join(root, "lock"))
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	return syscall.Kill(pid, syscall.SIGTERM)
}
