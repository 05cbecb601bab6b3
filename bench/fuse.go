package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Devices as files by FUSE, with fio as the client: udm compared with
// qemu-storage-daemon, on files of the same kind in memory, in steady state.

func benchFUSE(r *report) error {
	if err := r.beside("FUSE", []string{"fio", "qemu-storage-daemon", "qemu-img", "fusermount3"}, startFUSE, r.fuseLoads()); err != nil {
		return err
	}
	r.claimFUSE()
	return nil
}

func (r *report) fuseLoads() (ls []load) {
	for _, rw := range []string{"randread", "randwrite"} {
		ls = append(ls, load{rw, "4k", 1, 1, 0}, load{rw, "4k", 16, 1, 0})
		if !r.quick {
			ls = append(ls, load{rw, "4k", 16, 4, 0})
		}
	}
	return append(ls, load{"read", "1M", 4, 1, 0}, load{"write", "1M", 4, 1, 0})
}

// claimFUSE claims that no case of udm is slower than the alternative.
func (r *report) claimFUSE() {
	for _, l := range r.fuseLoads() {
		g := "FUSE: " + l.String()
		r.atLeast(1, r.ratio(g, "udm linear", "qemu raw"), "%s: udm linear over qemu-storage-daemon raw", g)
		for _, dev := range []string{"udm snapshot", "udm thin"} {
			r.atLeast(1, r.ratio(g, dev, "qemu qcow2"), "%s: %s over qemu-storage-daemon qcow2", g, dev)
		}
	}
}

// startFUSE starts both daemons; stop ends them.
func startFUSE(dir string) (servers []*server, stop func(), err error) {
	var cmds []*exec.Cmd
	stop = func() {
		for _, c := range cmds {
			_ = c.Process.Signal(syscall.SIGTERM)
			_ = c.Wait()
		}
	}
	if err := makeImages(dir); err != nil {
		return nil, stop, err
	}
	if err := copyFile(filepath.Join(dir, "plain.raw"), filepath.Join(dir, "linear.raw")); err != nil {
		return nil, stop, err
	}
	mnt, qemu := filepath.Join(dir, "mnt"), filepath.Join(dir, "qemu")
	if err := errors.Join(os.Mkdir(mnt, 0o700), os.Mkdir(qemu, 0o700)); err != nil {
		return nil, stop, err
	}
	start := func(args ...string) *exec.Cmd {
		c := exec.Command(args[0], args[1:]...)
		c.Stderr = os.Stderr
		if serr := c.Start(); serr != nil {
			err = errors.Join(err, serr)
			return c
		}
		cmds = append(cmds, c)
		return c
	}
	bin, root := "bin/udm", filepath.Join(dir, "udm")
	udm := start(bin, "--root", root, "daemon", "--mount", mnt)
	if err = errors.Join(err, await(filepath.Join(root, "nbd.sock"))); err != nil {
		return nil, stop, err
	}
	if err = fuseDevices(bin, root, dir); err != nil {
		return nil, stop, err
	}
	for _, name := range []string{"linear", "snapshot", "thin"} {
		servers = append(servers, &server{name: "udm " + name, cmd: udm, file: filepath.Join(mnt, name)})
	}
	for name, image := range map[string]string{"raw": "plain.raw", "qcow2": "overlay.qcow2"} {
		path := filepath.Join(qemu, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			return nil, stop, err
		}
		c := start("qemu-storage-daemon", "--blockdev", "driver=file,node-name=file,filename="+filepath.Join(dir, image),
			"--blockdev", "driver="+name+",node-name=disk,file=file",
			"--export", "type=fuse,id=export,node-name=disk,writable=on,mountpoint="+path)
		servers = append(servers, &server{name: "qemu " + name, cmd: c, file: path})
		err = errors.Join(err, awaitSize(path))
	}
	return servers, stop, err
}

func copyFile(from, to string) error {
	p, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, p, 0o600)
}

// awaitSize waits until a file has the size of the device that is mounted on it.
func awaitSize(path string) error {
	for range 500 {
		if st, err := os.Stat(path); err == nil && st.Size() > 0 {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("nothing is mounted on %s", path)
}

// fuseDevices makes the devices of udm, on files like those of the others.
func fuseDevices(bin, root, dir string) error {
	sectors := nbdSize / 512
	file := func(name string) string { return filepath.Join(dir, name) }
	return dmsetup(bin, root, [][]string{
		{"create", "linear", "--table", fmt.Sprintf("0 %d linear %s 0", sectors, file("linear.raw"))},
		{"create", "snapshot", "--table", fmt.Sprintf("0 %d snapshot %s %s P 8", sectors, file("origin.raw"), file("store.raw"))},
		{"create", "pool", "--table", fmt.Sprintf("0 %d thin-pool %s %s 128 0 1 skip_block_zeroing", 2*sectors, file("meta.raw"), file("data.raw"))},
		{"message", "pool", "0", "create_thin 0"},
		{"create", "thin", "--table", fmt.Sprintf("0 %d thin /dev/mapper/pool 0", sectors)},
	})
}
