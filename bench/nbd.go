package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Devices over NBD on a Unix socket, with fio as the client: udm compared with nbdkit and
// qemu-nbd, on files of the same kind in memory, in steady state: every block has been
// written before.

const nbdSize = 256 << 20 // bytes of each disk

// server is one of the servers that are compared.
type server struct {
	name string
	cmd  *exec.Cmd
	uri  string
	file string // of FUSE; "": an NBD server
	own  bool   // the process serves more than this: shared daemon
}

// engine returns fio's options for the server.
func (s *server) engine() []string {
	if s.file != "" {
		return []string{"--ioengine=libaio", "--direct=1", "--filename=" + s.file}
	}
	return []string{"--ioengine=nbd", "--uri=" + s.uri}
}

// load is a workload of fio.
type load struct {
	rw          string
	block       string
	depth, jobs int
	last        int // bytes at the end of the disk; 0: all
}

func (l load) String() string {
	return fmt.Sprintf("%s %s, depth %d, %d jobs", l.rw, l.block, l.depth, l.jobs)
}

func benchNBD(r *report) error {
	if err := r.beside("NBD", []string{"fio", "nbdkit", "qemu-nbd", "qemu-img"}, startServers, r.loads()); err != nil {
		return err
	}
	r.claimNBD()
	return nil
}

// beside starts the servers, which need the tools, fills their disks, warms them up, and
// runs each load on all of them.
func (r *report) beside(kind string, tools []string, start func(dir string) ([]*server, func(), error), loads []load, warm ...func([]*server) error) error {
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%s is missing (make packages installs it)", tool)
		}
	}
	dir, err := os.MkdirTemp(shm(), "udm-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	servers, stop, err := start(dir)
	defer stop()
	for _, s := range servers {
		if err == nil {
			_, err = fio(s, load{rw: "write", block: "1M", depth: 4, jobs: 1}, 0)
		}
	}
	for _, f := range warm {
		if err == nil {
			err = f(servers)
		}
	}
	for _, l := range loads {
		if err == nil {
			err = r.compare(kind, servers, l)
		}
	}
	return err
}

func (r *report) loads() (ls []load) {
	depths := []int{1, 16, 64}
	if r.quick {
		depths = []int{1, 16}
	}
	for _, rw := range []string{"randread", "randwrite"} {
		for _, d := range depths {
			ls = append(ls, load{rw, "4k", d, 1, 0})
		}
		if !r.quick {
			ls = append(ls, load{rw, "4k", 16, 4, 0})
		}
	}
	if !r.quick {
		ls = append(ls, load{"read", "64k", 16, 1, 0}, load{"write", "64k", 16, 1, 0})
	}
	return ls
}

// compare runs one load on all servers in turn.
func (r *report) compare(kind string, servers []*server, l load) error {
	var cases []served
	for _, s := range servers {
		cases = append(cases, served{s.name, func() (fioResult, error) { return fio(s, l, fioTime) }})
	}
	return r.served(kind+": "+l.String(), cases)
}

// served is a load on a server.
type served struct {
	name string
	run  func() (fioResult, error)
}

// serverFigures are what served tells of a server beside its speed. A wait is a voluntary
// switch of one of its threads: a request that is handed from thread to thread waits.
var serverFigures = []struct {
	suffix, unit string
	of           func(fioResult) float64
}{
	{", server CPU", "µs/IO", func(v fioResult) float64 { return v.cpu * 1e6 }},
	{waitSuffix, "1/IO", func(v fioResult) float64 { return v.waits }},
	{tailSuffix, "µs", func(v fioResult) float64 { return v.tail }},
}

const (
	waitSuffix = ", server's waits"
	tailSuffix = ", latency p99.9"
)

// served runs cases in turn, and adds the servers' speed, processor time, waits and
// latency to the report.
func (r *report) served(group string, cases []served) error {
	var ms []measured
	results := make([][]fioResult, len(cases))
	for i, c := range cases {
		ms = append(ms, measured{c.name, "IO/s", func() (float64, error) {
			v, err := c.run()
			results[i] = append(results[i], v)
			return v.iops, err
		}})
	}
	if err := r.group(group, ms...); err != nil {
		return err
	}
	for _, what := range serverFigures {
		for i, c := range cases {
			f := &figure{Group: group + what.suffix, Name: c.name, Unit: what.unit}
			for _, v := range results[i][1:] { // the first does not count
				f.Rounds = append(f.Rounds, what.of(v))
			}
			if what.suffix == tailSuffix && f.high() == 0 {
				continue // its load does not tell
			}
			r.add(f)
		}
	}
	return nil
}

func (r *report) claimNBD() {
	for _, l := range r.loads() {
		if l.block != "4k" || l.jobs != 1 {
			continue
		}
		g := "NBD: " + l.String()
		r.atLeast(1, r.ratio(g, "udm linear", "nbdkit memory"), "%s: udm linear over nbdkit memory", g)
		for _, dev := range []string{"udm linear", "udm snapshot", "udm thin"} {
			r.atMost(2, r.ratio(g+tailSuffix, dev, "nbdkit memory"), "%s: p99.9, %s over nbdkit memory", g, dev)
		}
		if l.depth == 1 {
			r.atLeast(1, r.ratio(g, "udm linear", "nbdkit null"), "%s: udm linear over nbdkit null", g)
			continue
		}
		r.atMost(0.5, r.find(g+waitSuffix, "udm linear").median(), "%s: waits of udm's threads per I/O, linear", g)
		r.atMost(0.9, r.ratio(g+", server CPU", "udm linear", "nbdkit memory"), "%s: CPU per I/O, udm linear over nbdkit memory", g)
		for _, dev := range []string{"udm snapshot", "udm thin"} {
			r.atLeast(3, r.ratio(g, dev, "qemu-nbd qcow2"), "%s: %s over qemu-nbd with qcow2", g, dev)
			r.atMost(0.4, r.ratio(g+", server CPU", dev, "qemu-nbd qcow2"), "%s: CPU per I/O, %s over qemu-nbd with qcow2", g, dev)
		}
	}
}

// fioTime is how long a load runs each time.
const fioTime = 500 * time.Millisecond

// fioResult is what a load on a server came to: I/Os per second; of the server, seconds of
// processor time and waits per I/O; and 99.9 of 100 I/Os took at most tail, in µs.
type fioResult struct{ iops, cpu, waits, tail float64 }

// fio runs a load for a time, or once over the whole disk if the time is 0.
func fio(s *server, l load, d time.Duration) (fioResult, error) {
	size := cmp.Or(l.last, nbdSize)
	args := append(s.engine(), "--name=x", "--rw="+l.rw, "--bs="+l.block,
		"--iodepth="+strconv.Itoa(l.depth), "--numjobs="+strconv.Itoa(l.jobs), "--group_reporting",
		"--size="+strconv.Itoa(size), "--offset="+strconv.Itoa(nbdSize-size), "--output-format=json", "--randrepeat=1", "--norandommap")
	if d > 0 {
		args = append(args, "--time_based", fmt.Sprintf("--runtime=%dms", d.Milliseconds()))
	}
	cpu, waits := cpuOf(s.cmd.Process.Pid), waitsOf(s.cmd.Process.Pid)
	out, err := exec.Command("fio", args...).Output()
	if err != nil {
		return fioResult{}, fmt.Errorf("fio on %s: %w", s.name, err)
	}
	cpu, waits = cpuOf(s.cmd.Process.Pid)-cpu, waitsOf(s.cmd.Process.Pid)-waits
	j, err := parseFio(out)
	if err != nil {
		return fioResult{}, fmt.Errorf("fio on %s: %w: %.200s", s.name, err, out)
	}
	n := max(1, j.Read.TotalIOs+j.Write.TotalIOs)
	return fioResult{j.Read.IOPS + j.Write.IOPS, cpu / n, waits / n, max(j.Read.tail(), j.Write.tail())}, nil
}

// fioJob is a job in fio's JSON.
type fioJob struct{ Read, Write fioSide }

type fioSide struct {
	IOPS     float64
	TotalIOs float64 `json:"total_ios"`
	Latency  struct {
		Percentile map[string]float64 // in ns
	} `json:"clat_ns"`
}

func (s fioSide) tail() float64 { return s.Latency.Percentile["99.900000"] / 1e3 }

func parseFio(out []byte) (fioJob, error) {
	var report struct{ Jobs []fioJob }
	if i := bytes.IndexByte(out, '{'); i > 0 { // what it warns of comes first
		out = out[i:]
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return fioJob{}, err
	}
	if len(report.Jobs) == 0 {
		return fioJob{}, errors.New("no job")
	}
	return report.Jobs[0], nil
}

// waitsOf returns how often threads of a process, those that have ended left out, have
// given up their processor to wait.
func waitsOf(pid int) (n float64) {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	for _, path := range threads {
		p, _ := os.ReadFile(path)
		_, rest, _ := strings.Cut(string(p), "\nvoluntary_ctxt_switches:")
		if f := strings.Fields(rest); len(f) > 0 {
			v, _ := strconv.ParseFloat(f[0], 64)
			n += v
		}
	}
	return n
}

// cpuOf returns the processor time of a process in seconds.
func cpuOf(pid int) float64 {
	p, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(p), ") ")
	f := strings.Fields(rest)
	user, _ := strconv.ParseFloat(f[11], 64)
	sys, _ := strconv.ParseFloat(f[12], 64)
	return (user + sys) / 100
}

// startServers starts one of each; stop ends them all.
func startServers(dir string) (servers []*server, stop func(), err error) {
	stop = func() { stopAll(servers) }
	if err = makeImages(dir); err != nil {
		return nil, stop, err
	}
	size := strconv.Itoa(nbdSize)
	if servers, err = startUDM(dir); err != nil {
		return servers, stop, err
	}
	for _, c := range [][]string{
		{"nbdkit memory", "nbdkit", "-f", "-U", "SOCK", "memory", size},
		{"nbdkit null", "nbdkit", "-f", "-U", "SOCK", "null", size},
		{"nbdkit cow", "nbdkit", "-f", "-U", "SOCK", "--filter=cow", "file", filepath.Join(dir, "cow.raw")},
		{"qemu-nbd raw", "qemu-nbd", "-t", "-e", "8", "-k", "SOCK", "-f", "raw", filepath.Join(dir, "plain.raw")},
		{"qemu-nbd qcow2", "qemu-nbd", "-t", "-e", "8", "-k", "SOCK", "-f", "qcow2", filepath.Join(dir, "overlay.qcow2")},
	} {
		if servers, err = launch(dir, servers, c[0], c[1:]...); err != nil {
			break
		}
	}
	return servers, stop, err
}

// stopAll ends servers, the last one first: it may be a client of those before, for which
// they wait.
func stopAll(servers []*server) {
	for _, s := range slices.Backward(servers) {
		if !s.own {
			_ = s.cmd.Process.Signal(os.Interrupt)
			_ = s.cmd.Wait()
		}
	}
}

// launch adds a server that it starts. SOCK in its arguments stands for its socket.
func launch(dir string, servers []*server, name string, args ...string) ([]*server, error) {
	sock := socketOf(dir, name)
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "SOCK", sock)
	}
	cmd := exec.Command(args[0], args[1:]...)
	if err := cmd.Start(); err != nil {
		return servers, err
	}
	return append(servers, &server{name: name, cmd: cmd, uri: "nbd+unix:///?socket=" + sock}), await(sock)
}

// socketOf is the socket of a server that launch starts.
func socketOf(dir, name string) string {
	return filepath.Join(dir, strings.ReplaceAll(name, " ", "-")+".sock")
}

// makeImages makes the servers' files.
func makeImages(dir string) error {
	zeros := make([]byte, 1<<20)
	for i := range zeros {
		zeros[i] = byte(i)
	}
	for _, name := range []string{"plain.raw", "cow.raw", "base.raw", "origin.raw"} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		for range nbdSize / len(zeros) {
			if _, err = f.Write(zeros); err != nil {
				break
			}
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	for name, size := range map[string]int64{"store.raw": 2 * nbdSize, "meta.raw": 16 << 20, "data.raw": 2 * nbdSize} {
		f, err := os.Create(filepath.Join(dir, name))
		if err == nil {
			err = errors.Join(f.Truncate(size), f.Close())
		}
		if err != nil {
			return err
		}
	}
	out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", "-b", filepath.Join(dir, "base.raw"), "-F", "raw",
		filepath.Join(dir, "overlay.qcow2")).CombinedOutput()
	if err != nil {
		return fmt.Errorf("qemu-img: %s", out)
	}
	return nil
}

// await waits until a socket exists.
func await(sock string) error {
	for range 500 {
		if _, err := os.Stat(sock); err == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("%s does not appear", sock)
}

// startUDM starts a daemon and makes its four devices.
func startUDM(dir string) ([]*server, error) {
	sectors := nbdSize / 512
	file := func(name string) string { return filepath.Join(dir, name) }
	return serveDevices(dir, []string{"linear", "snapshot", "thin"}, [][]string{
		{"create", "linear", "--table", fmt.Sprintf("0 %d linear mem:%d 0", sectors, nbdSize)},
		{"create", "snapshot", "--table", fmt.Sprintf("0 %d snapshot %s %s P 8", sectors, file("origin.raw"), file("store.raw"))},
		{"create", "pool", "--table", fmt.Sprintf("0 %d thin-pool %s %s 128 0 1 skip_block_zeroing", 2*sectors, file("meta.raw"), file("data.raw"))},
		{"message", "pool", "0", "create_thin 0"},
		{"create", "thin", "--table", fmt.Sprintf("0 %d thin /dev/mapper/pool 0", sectors)},
	})
}

// serveDevices starts a daemon, carries out commands of dmsetup, and returns the devices of
// these names as servers.
func serveDevices(dir string, names []string, commands [][]string) (servers []*server, err error) {
	bin, err := filepath.Abs("bin/udm")
	if err != nil {
		return nil, err
	}
	root := filepath.Join(dir, "udm")
	cmd := exec.Command(bin, "--root", root, "daemon")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w (make build makes it)", err)
	}
	sock := filepath.Join(root, "nbd.sock")
	for _, name := range names {
		servers = append(servers, &server{name: "udm " + name, cmd: cmd, uri: "nbd+unix:///" + name + "?socket=" + sock, own: len(servers) > 0})
	}
	if err := await(sock); err != nil {
		return servers, err
	}
	return servers, dmsetup(bin, root, commands)
}

// dmsetup carries out commands of udm dmsetup.
func dmsetup(bin, root string, commands [][]string) error {
	for _, c := range commands {
		out, err := exec.Command(bin, append([]string{"--root", root, "dmsetup"}, c...)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("udm dmsetup %v: %s", c, out)
		}
	}
	return nil
}
