package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"udm/blk"
	"udm/blk/filedev"
	"udm/dm"
)

// I/O of 4 KiB at random to a file on this machine's disk, past the page cache: linear
// over filedev, with io_uring and without, beside fio on the file itself. The CPU time
// is that of the whole process.

func benchFiles(r *report) error {
	path := filepath.Join(r.out, "files.img")
	size := uint64(2 << 30)
	if r.quick {
		size = 256 << 20
	}
	if err := fillFile(path, size); err != nil {
		return err
	}
	defer os.Remove(path)
	for _, op := range []blk.Op{blk.Read, blk.Write} {
		for _, depth := range []int{1, 16, 64} {
			if err := r.fileGroup(path, size, op, depth); err != nil {
				return err
			}
		}
	}
	return nil
}

// fileTime is how long a load runs each time.
func (r *report) fileTime() time.Duration {
	if r.quick {
		return 300 * time.Millisecond
	}
	return 2 * time.Second
}

// fillFile makes a file whose blocks are all allocated and written.
func fillFile(path string, size uint64) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	p := make([]byte, 1<<20)
	for i := range p {
		p[i] = byte(i * 7)
	}
	for range size / uint64(len(p)) {
		if _, err := f.Write(p); err != nil {
			return err
		}
	}
	return f.Sync()
}

// fileCase is a way to do the I/O; run gives I/Os a second and microseconds of CPU for each.
type fileCase struct {
	name string
	run  func() (iops, cpu float64, err error)
}

func (r *report) fileGroup(path string, size uint64, op blk.Op, depth int) error {
	group := fmt.Sprintf("file, %v, depth %d", op, depth)
	cases := []fileCase{
		{"fio", func() (float64, float64, error) { return fioFile(path, size, op, depth, r.fileTime()) }},
		{"linear, io_uring", func() (float64, float64, error) {
			return linearOverFile(path, filedev.Options{Direct: true}, op, depth, r.fileTime())
		}},
		{"linear, workers", func() (float64, float64, error) {
			return linearOverFile(path, filedev.Options{Direct: true, Ring: -1}, op, depth, r.fileTime())
		}},
	}
	var ms []measured
	for _, c := range cases {
		var cpu float64
		ms = append(ms, measured{c.name, "I/O/s", func() (v float64, err error) {
			v, cpu, err = c.run()
			return v, err
		}}, measured{c.name + ", CPU", "µs", func() (float64, error) { return cpu, nil }})
	}
	if err := r.group(group, ms...); err != nil {
		return err
	}
	r.atLeast(0.95, r.ratio(group, "linear, io_uring", "fio"), "%s: linear with io_uring over fio", group)
	if depth > 1 { // alone, a bio is done by a worker
		r.atLeast(1, r.ratio(group, "linear, io_uring", "linear, workers"), "%s: linear with io_uring over workers", group)
		r.atMost(0.7, r.ratio(group, "linear, io_uring, CPU", "linear, workers, CPU"), "%s: CPU per I/O, linear with io_uring over workers", group)
	}
	return nil
}

// linearOverFile measures a linear device over the file.
func linearOverFile(path string, o filedev.Options, op blk.Op, depth int, d time.Duration) (iops, cpu float64, err error) {
	f, err := filedev.Open(path, o)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	s := newStack(map[string]blk.Device{"file": f})
	defer s.close()
	linear, err := s.device("linear", "0 %d linear file 0", f.Limits().Size)
	if err != nil {
		return 0, 0, err
	}
	return loadFile(linear, op, depth, d)
}

// loadFile keeps depth bios of 4 KiB at random in flight for a time. The end of each submits the
// next, as fio does where it reaps completions.
func loadFile(d *dm.Device, op blk.Op, depth int, long time.Duration) (iops, cpu float64, err error) {
	l := &fileLoad{device: d, blocks: d.Limits().Size / 8, end: time.Now().Add(long)}
	memory := alignedMemory(depth * 4096)
	l.under.Add(depth)
	before, start := cpuTime(), time.Now()
	for i := range depth {
		b := &blk.Bio{Op: op, End: l.ended}
		b.SetData(memory[i*4096:][:4096])
		l.submit(b)
	}
	l.under.Wait()
	n, took := float64(l.n.Load()), time.Since(start)
	return n / took.Seconds(), float64((cpuTime() - before).Microseconds()) / n, blk.Status(l.failed.Load()).Err()
}

type fileLoad struct {
	device *dm.Device
	blocks uint64
	end    time.Time
	n      atomic.Int64
	failed atomic.Uint32 // a blk.Status
	under  sync.WaitGroup
}

func (l *fileLoad) submit(b *blk.Bio) {
	b.Rearm()
	b.Sector, b.Sectors = rand.Uint64N(l.blocks)*8, 8
	l.device.Submit(b)
}

func (l *fileLoad) ended(b *blk.Bio) {
	l.n.Add(1)
	st := b.Status()
	if st != blk.OK {
		l.failed.Store(uint32(st))
	}
	if st != blk.OK || time.Now().After(l.end) {
		l.under.Done()
		return
	}
	l.submit(b)
}

// alignedMemory is memory as O_DIRECT wants it.
func alignedMemory(n int) []byte {
	const page = 4096
	p := make([]byte, n+page)
	at := int(-uintptr(unsafe.Pointer(&p[0])) & (page - 1))
	return p[at : at+n]
}

// fioFile measures the bare file.
func fioFile(path string, size uint64, op blk.Op, depth int, d time.Duration) (iops, cpu float64, err error) {
	out, err := exec.Command("fio", "--name=x", "--filename="+path, fmt.Sprint("--size=", size), "--bs=4k", fmt.Sprintf("--rw=rand%v", op),
		fmt.Sprint("--iodepth=", depth), "--ioengine=io_uring", "--direct=1", fmt.Sprintf("--runtime=%dms", d.Milliseconds()), "--time_based",
		"--norandommap", "--output-format=json").Output()
	if err != nil {
		return 0, 0, err
	}
	type side struct {
		IOPS float64 `json:"iops"`
	}
	raw := struct {
		Jobs []struct {
			Read   side    `json:"read"`
			Write  side    `json:"write"`
			UsrCPU float64 `json:"usr_cpu"`
			SysCPU float64 `json:"sys_cpu"`
		} `json:"jobs"`
	}{}
	if err := json.Unmarshal(out, &raw); err != nil {
		return 0, 0, err
	}
	j := raw.Jobs[0]
	iops = j.Read.IOPS + j.Write.IOPS
	return iops, (j.UsrCPU + j.SysCPU) / 100 * 1e6 / iops, nil
}
