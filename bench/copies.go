package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"udm/blk"
	"udm/blk/filedev"
	"udm/dm"
)

// Copies: the breaking of sharing in a pool and the merging of a snapshot,
// beside a plain copy of the same bytes between the same files.

const copySize = 128 << 20 / blk.SectorSize // sectors

func benchCopies(r *report) error {
	dir, err := os.MkdirTemp(shm(), "udm-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	sizes := []uint64{128, 512, 2048}
	if r.quick {
		sizes = sizes[:1]
	}
	for _, block := range sizes {
		group := fmt.Sprintf("breaking sharing, blocks of %d KiB", block/2)
		err := r.group(group,
			measured{"plain copy", "MB/s", func() (float64, error) { return plainCopy(dir, block) }},
			measured{"break sharing", "MB/s", func() (float64, error) { return breakSharing(dir, block) }})
		if err != nil {
			return err
		}
		r.atLeast(0.5, r.ratio(group, "break sharing", "plain copy"), "%s, over a plain copy", group)
	}
	err = r.group("merging a snapshot, chunks of 64 KiB",
		measured{"plain copy", "MB/s", func() (float64, error) { return plainCopy(dir, 128) }},
		measured{"merge", "MB/s", func() (float64, error) { return merge(dir) }})
	if err != nil {
		return err
	}
	r.atLeast(0.5, r.ratio("merging a snapshot, chunks of 64 KiB", "merge", "plain copy"), "merging over a plain copy")
	return nil
}

// shm returns a directory whose files are in memory, or "".
func shm() string {
	if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() {
		return "/dev/shm"
	}
	return ""
}

// files opens fresh sparse files as the disks of a stack; sizes in sectors.
func files(dir string, sizes map[string]uint64) (*stack, error) {
	disks := map[string]blk.Device{}
	for name, n := range sizes {
		path := filepath.Join(dir, name)
		_ = os.Remove(path)
		if err := filedev.Create(path, n); err != nil {
			return nil, err
		}
		d, err := filedev.Open(path, filedev.Options{})
		if err != nil {
			return nil, err
		}
		disks[name] = d
	}
	return newStack(disks), nil
}

// end closes a stack and its files.
func (s *stack) end() error {
	err := s.close()
	for _, d := range s.disks {
		if e := d.Close(); err == nil {
			err = e
		}
	}
	return err
}

func rate(start time.Time) float64 {
	return copySize * blk.SectorSize / 1e6 / time.Since(start).Seconds()
}

// plainCopy copies from one file to another by reads and writes of a block.
func plainCopy(dir string, block uint64) (v float64, err error) {
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	if err = os.WriteFile(from, make([]byte, copySize*blk.SectorSize), 0o600); err != nil {
		return
	}
	_ = os.Remove(to)
	in, err := os.Open(from)
	if err != nil {
		return
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return
	}
	defer out.Close()
	p := make([]byte, block*blk.SectorSize)
	start := time.Now()
	for range copySize / block {
		if _, err = in.Read(p); err == nil {
			_, err = out.Write(p)
		}
		if err != nil {
			return
		}
	}
	return rate(start), nil
}

// breakSharing writes 4 KiB to every block of a volume that has a snapshot.
func breakSharing(dir string, block uint64) (v float64, err error) {
	s, err := files(dir, map[string]uint64{"meta": 1 << 16, "data": 2*copySize + 64*block})
	if err != nil {
		return 0, err
	}
	pool, err := s.device("pool", "0 %d thin-pool meta data %d 0 1 skip_block_zeroing", 2*copySize+64*block, block)
	if err != nil {
		return 0, err
	}
	if _, err = pool.Message(0, "create_thin 0"); err != nil {
		return 0, err
	}
	d, err := s.device("thin", "0 %d thin /dev/mapper/pool 0", copySize)
	if err != nil {
		return 0, err
	}
	if err = flood(d, block, block); err == nil {
		_, err = pool.Message(0, "create_snap 1 0")
	}
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if err = flood(d, block, 8); err != nil {
		return 0, err
	}
	v = rate(start)
	return v, s.end()
}

// flood writes n sectors at every step sectors, 32 writes at a time.
func flood(d blk.Device, step, n uint64) error {
	free := make(chan *blk.Bio, 32)
	p := make([]byte, n*blk.SectorSize)
	for range cap(free) {
		free <- &blk.Bio{End: func(b *blk.Bio) { free <- b }}
	}
	var err error
	next := func() *blk.Bio {
		b := <-free
		if b.Status() != blk.OK {
			err = b.Status()
		}
		return b
	}
	for at := uint64(0); at < copySize; at += step {
		b := next()
		b.Rearm()
		b.Op, b.Sector = blk.Write, at
		b.SetData(p)
		d.Submit(b)
	}
	for range cap(free) {
		next()
	}
	return err
}

// merge writes a whole snapshot and merges it.
func merge(dir string) (v float64, err error) {
	s, err := files(dir, map[string]uint64{"o": copySize, "c": 2 * copySize})
	if err != nil {
		return 0, err
	}
	d, err := s.device("snap", "0 %d snapshot o c P 128", copySize)
	if err != nil {
		return 0, err
	}
	if err = flood(d, 128, 128); err != nil {
		return 0, err
	}
	if _, err = d.Remove(false); err != nil {
		return 0, err
	}
	start := time.Now()
	if d, err = s.device("merge", "0 %d snapshot-merge o c P 128", copySize); err != nil {
		return 0, err
	}
	if err = merged(d); err != nil {
		return 0, err
	}
	v = rate(start)
	return v, s.end()
}

// merged waits until the status says that only metadata is allocated.
func merged(d *dm.Device) error {
	for {
		status := d.Lines(dm.Info, false, 0)[0].Params
		used, rest, _ := strings.Cut(status, "/")
		_, meta, ok := strings.Cut(rest, " ")
		switch {
		case !ok:
			return fmt.Errorf("merge: %s", status)
		case used == meta:
			return d.Suspend(context.Background(), false)
		}
		time.Sleep(time.Millisecond)
	}
}
