package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"

	"udm/blk"
	"udm/blk/memdev"
	"udm/dm"
	"udm/export"
	"udm/export/vhost"
	"udm/export/vhost/driver"
)

// What it costs that a vhost-user server commits the metadata of writes before it answers
// them: each write goes to a block that has not been written before. The disks below are
// memory and their flushes do nothing, so this is the work of the commits alone. A
// snapshot commits by itself before its writes end, so there it is only the question. The
// processor time is that of this process, with the driver.

const (
	commitBlocks = 4096
	commitDepth  = 16
	commitSize   = commitBlocks * thinBlock
)

// benchCommits measures in this process.
func (r *report) benchCommits(dir string) error {
	var ms []measured
	for _, what := range []string{"thin", "snapshot"} {
		for _, commit := range []bool{true, false} {
			name := what + ", answered when committed"
			if !commit {
				name = what + ", answered at once"
			}
			ms = append(ms, measured{name, "µs CPU/write", func() (float64, error) { return writeNewBlocks(dir, what, commit) }})
		}
	}
	return r.group(fmt.Sprintf("vhost-user: writes to new blocks, depth %d", commitDepth), ms...)
}

// writeNewBlocks writes to each block of a fresh device once, in random order, and returns
// the processor time of a write.
func writeNewBlocks(dir, what string, commit bool) (cpu float64, err error) {
	outlives := memdev.Tune(func(l *blk.Limits) { l.ProcessCache, l.ProcessMemory = false, false })
	s := newStack(map[string]blk.Device{"meta": memdev.New(1<<18, outlives), "data": memdev.New(2*commitSize, outlives)})
	defer func() { err = errors.Join(err, s.close()) }()
	d, err := freshDevice(s, what)
	if err != nil {
		return 0, err
	}
	x := export.Export{Info: export.Info{Name: what}, Device: export.Check(keep{d}), Uncommitted: d.Uncommitted}
	if !commit {
		x.Uncommitted = func() bool { return false }
	}
	srv, err := vhost.New(vhost.Config{Name: what, Exports: export.Fixed{x}, Queues: 1})
	if err != nil {
		return 0, err
	}
	path := filepath.Join(dir, "commits.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	before := cpuTime()
	err = writeEach(path)
	used := cpuTime() - before
	srv.Close()
	<-ended
	return float64(used.Nanoseconds()) / 1e3 / commitBlocks, err
}

func freshDevice(s *stack, what string) (*dm.Device, error) {
	if what == "snapshot" {
		return s.device("device", "0 %d snapshot data meta P %d", commitSize, thinBlock/16)
	}
	pool, err := s.device("pool", "0 %d thin-pool meta data %d 0 1 skip_block_zeroing", 2*commitSize, thinBlock)
	if err != nil {
		return nil, err
	}
	if _, err := pool.Message(0, "create_thin 0"); err != nil {
		return nil, err
	}
	return s.device("device", "0 %d thin /dev/mapper/pool 0", commitSize)
}

// writeEach writes 4 KiB to each block by the server at a socket.
func writeEach(path string) error {
	defer os.Remove(path)
	d, err := driver.Open(path, driver.Options{Queues: 1, Slots: commitDepth, Block: 4096})
	if err != nil {
		return err
	}
	defer d.Close()
	q, order := d.Queues[0], rand.Perm(commitBlocks)
	for slot := range commitDepth {
		if err := q.Submit(slot, driver.Write, uint64(order[slot])*thinBlock); err != nil {
			return err
		}
	}
	q.Kick()
	for next := commitDepth; next < commitBlocks+commitDepth; next++ {
		slot, ok := q.Wait()
		if !ok {
			return errors.New("a write failed")
		}
		if next < commitBlocks {
			if err := q.Submit(slot, driver.Write, uint64(order[next])*thinBlock); err != nil {
				return err
			}
			q.Kick()
		}
	}
	return nil
}
