package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"udm/export/vhost/driver"
)

// Devices over vhost-user-blk with a driver of our own, which has no guest, beside the same
// over NBD with fio, and qemu-storage-daemon on a file in memory like that of "udm file".

// vhostCase is a server at a socket, or over NBD.
type vhostCase struct {
	*server
	socket string // "": NBD
	packed bool
}

func benchVhost(r *report) error {
	dir, err := os.MkdirTemp(shm(), "udm-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cases, stop, err := startVhost(dir)
	defer stop()
	if err != nil {
		return err
	}
	depths, queues := []int{1, 16, 64}, []int{1, 2}
	if r.quick {
		depths, queues = depths[:2], queues[:1]
	}
	for _, n := range queues {
		for _, op := range []driver.Op{driver.Read, driver.Write} {
			for _, depth := range depths {
				if err := r.vhost(cases, op, depth, n); err != nil {
					return err
				}
			}
		}
	}
	r.claimVhost(depths)
	return r.benchCommits(dir)
}

func vhostGroup(op driver.Op, depth, queues int) string {
	return fmt.Sprintf("vhost-user: %s 4k, depth %d, %d queues", vhostRW(op), depth, queues)
}

func vhostRW(op driver.Op) string {
	if op == driver.Write {
		return "randwrite"
	}
	return "randread"
}

// vhost runs one load on all servers in turn.
func (r *report) vhost(cases []*vhostCase, op driver.Op, depth, queues int) error {
	var all []served
	for _, c := range cases {
		all = append(all, served{c.name, func() (fioResult, error) { return c.run(op, depth, queues) }})
	}
	return r.served(vhostGroup(op, depth, queues), all)
}

func (r *report) claimVhost(depths []int) {
	for _, depth := range depths {
		g := vhostGroup(driver.Read, depth, 1)
		if depth > 1 {
			for _, poll := range []time.Duration{0, polled} {
				qemu := pollName("qemu-storage-daemon", poll)
				r.atLeast(3, r.ratio(g, pollName("udm file", poll), qemu), "%s: udm over %s, files in memory", g, qemu)
			}
			r.atMost(0.5, r.ratio(g+", server CPU", "udm memory", "udm memory, NBD"), "%s: CPU per I/O, vhost-user over NBD", g)
		}
		if depth == 64 {
			r.atMost(1, r.find(g+", server CPU", "udm memory").median(), "%s: µs of CPU per I/O, linear over memory", g)
		}
	}
}

// run keeps depth requests in flight in each queue for a time.
func (c *vhostCase) run(op driver.Op, depth, queues int) (fioResult, error) {
	if c.socket == "" {
		return fio(c.server, load{vhostRW(op), "4k", depth, queues, 0}, fioTime)
	}
	d, err := c.open(driver.Options{Queues: queues, Slots: depth, Block: 4096, Packed: c.packed})
	if err != nil {
		return fioResult{}, fmt.Errorf("%s: %w", c.name, err)
	}
	defer d.Close()
	before, waits, begin := cpuOf(c.cmd.Process.Pid), waitsOf(c.cmd.Process.Pid), time.Now()
	counts, errs := make([]int, queues), make([]error, queues)
	var all sync.WaitGroup
	for i, q := range d.Queues {
		all.Go(func() { counts[i], errs[i] = keepBusy(q, op, depth, uint64(i), begin.Add(fioTime)) })
	}
	all.Wait()
	took, used := time.Since(begin).Seconds(), cpuOf(c.cmd.Process.Pid)-before
	waits = waitsOf(c.cmd.Process.Pid) - waits
	n := 0
	for _, k := range counts {
		n += k
	}
	each := 1 / float64(max(1, n))
	return fioResult{iops: float64(n) / took, cpu: used * each, waits: waits * each}, errors.Join(errs...)
}

// open connects when the server has noticed the end of the connection before. It polls,
// because servers do not announce that.
func (c *vhostCase) open(o driver.Options) (d *driver.Disk, err error) {
	for range 100 {
		if d, err = driver.Open(c.socket, o); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return d, err
}

func keepBusy(q *driver.Queue, op driver.Op, depth int, seed uint64, end time.Time) (n int, err error) {
	r := rand.New(rand.NewPCG(seed, 1))
	next := func(slot int) error { return q.Submit(slot, op, r.Uint64N(nbdSize/4096)*8) }
	for slot := range depth {
		if err := next(slot); err != nil {
			return 0, err
		}
	}
	q.Kick()
	for busy := depth; busy > 0; n++ {
		slot, ok := q.Wait()
		if !ok {
			return n, fmt.Errorf("request %d failed", n)
		}
		if n%64 == 0 && time.Now().After(end) {
			depth = 0
		}
		if depth == 0 {
			busy--
			continue
		}
		if err := next(slot); err != nil {
			return n, err
		}
		q.Kick()
	}
	return n, nil
}

// polled is how long a server may watch a ring before it sleeps, in the cases that poll.
const polled = 32 * time.Microsecond

// startVhost starts the servers, with two queues each.
func startVhost(dir string) (cases []*vhostCase, stop func(), err error) {
	var servers []*server
	stop = func() { stopAll(servers) }
	if _, err := exec.LookPath("qemu-storage-daemon"); err != nil {
		return nil, stop, fmt.Errorf("qemu-storage-daemon is missing (make packages installs it)")
	}
	file := filepath.Join(dir, "udm.raw")
	if err := fillFile(file, nbdSize); err != nil {
		return nil, stop, err
	}
	sectors := strconv.Itoa(nbdSize / 512)
	names := []string{"memory", "file"}
	servers, err = serveDevices(dir, names, [][]string{
		{"create", "memory", "--table", "0 " + sectors + " linear mem:" + strconv.Itoa(nbdSize) + " 0"},
		{"create", "file", "--table", "0 " + sectors + " linear " + file + " 0"},
	})
	if err != nil {
		return nil, stop, err
	}
	if _, err = fio(servers[0], load{rw: "write", block: "1M", depth: 4, jobs: 1}, 0); err != nil {
		return nil, stop, err
	}
	nbd := *servers[0]
	nbd.name = "udm memory, NBD"
	cases = []*vhostCase{{server: &nbd}}
	for _, poll := range []time.Duration{0, polled} {
		for i, name := range names {
			c, err := exportVhost(dir, name, servers[i].cmd, poll)
			if err != nil {
				return nil, stop, err
			}
			cases = append(cases, c)
		}
		q, err := startQemu(dir, poll)
		if q != nil {
			servers, cases = append(servers, q.server), append(cases, q)
		}
		if err != nil {
			return nil, stop, err
		}
	}
	packed := *cases[1]
	packed.server, packed.packed = &server{name: "udm memory, packed", cmd: packed.cmd}, true
	return append(cases, &packed), stop, nil
}

// pollName is the name of a case.
func pollName(name string, poll time.Duration) string {
	if poll > 0 {
		return name + ", polled"
	}
	return name
}

// exportVhost exports a device of udm.
func exportVhost(dir, name string, daemon *exec.Cmd, poll time.Duration) (*vhostCase, error) {
	text := "off"
	if poll > 0 {
		text = poll.String()
	}
	sock := filepath.Join(dir, name+text+".vhost")
	out, err := exec.Command("bin/udm", "--root", filepath.Join(dir, "udm"), "export", name, "--vhost-user", sock, "--queues", "2", "--poll", text).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("udm export: %s", out)
	}
	return &vhostCase{server: &server{name: pollName("udm "+name, poll), cmd: daemon}, socket: sock}, nil
}

// startQemu starts qemu-storage-daemon on a file of its own.
func startQemu(dir string, poll time.Duration) (*vhostCase, error) {
	name := pollName("qemu-storage-daemon", poll)
	file, sock := filepath.Join(dir, name+".raw"), filepath.Join(dir, fmt.Sprint("qemu", poll.Nanoseconds(), ".vhost"))
	if err := fillFile(file, nbdSize); err != nil {
		return nil, err
	}
	cmd := exec.Command("qemu-storage-daemon", "--object", fmt.Sprintf("iothread,id=t,poll-max-ns=%d", poll.Nanoseconds()),
		"--blockdev", "driver=file,node-name=f,cache.direct=off,filename="+strings.ReplaceAll(file, ",", ",,"),
		"--export", "type=vhost-user-blk,id=e,node-name=f,writable=on,num-queues=2,iothread=t,addr.type=unix,addr.path="+sock)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &vhostCase{server: &server{name: name, cmd: cmd}, socket: sock}, await(sock)
}
