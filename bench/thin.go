package main

import (
	"fmt"
	"time"

	"udm/blk"
	"udm/blk/memdev"
	"udm/dm"
)

// The experiment of the upstream change "remap the bios in a cell immediately" (Linux
// 3.19): for a write to an unmapped block, the block is zeroed first; writes to other
// parts of the block wait in its cell meanwhile and are sent together with the first one,
// not in a later pass of the worker.

const cellWaiters = 16

func benchThin(r *report) error {
	s := newStack(map[string]blk.Device{"meta": memdev.New(1 << 18), "data": memdev.New(1 << 16 * thinBlock)})
	pool, err := s.device("pool", "0 %d thin-pool meta data %d 0", 1<<16*thinBlock, thinBlock)
	if err != nil {
		return err
	}
	p := &provisioner{pool: pool, s: s}
	err = r.group("thin: writes to new blocks of 64 KiB, zeroed",
		measured{"one write, alone", "µs", func() (float64, error) { return p.each(1) }},
		measured{fmt.Sprintf("the last of %d writes to one block", cellWaiters), "µs", func() (float64, error) { return p.each(cellWaiters) }},
	)
	if err != nil {
		return err
	}
	return s.close()
}

// provisioner writes to fresh volumes of a pool.
type provisioner struct {
	pool *dm.Device
	s    *stack
	id   int
}

const provisions = 256 // blocks in one run

// each submits n writes to each block of a fresh volume at once, block after block, and
// returns the average time until the last write to a block has ended.
func (p *provisioner) each(n int) (float64, error) {
	p.id++
	name := fmt.Sprint("thin", p.id)
	if _, err := p.pool.Message(0, fmt.Sprint("create_thin ", p.id)); err != nil {
		return 0, err
	}
	d, err := p.s.device(name, "0 %d thin /dev/mapper/pool %d", provisions*thinBlock, p.id)
	if err != nil {
		return 0, err
	}
	took := burst(d, n)
	if _, err = d.Remove(false); err == nil {
		_, err = p.pool.Message(0, fmt.Sprint("delete ", p.id))
	}
	return float64(took) / 1e3 / provisions, err
}

// burst sends n writes of 4 KiB to one block after the other.
func burst(d blk.Device, n int) (took time.Duration) {
	done := make(chan struct{}, n)
	bios := make([]blk.Bio, n)
	buf := make([]byte, 4096)
	start := time.Now()
	for block := range uint64(provisions) {
		for i := range bios {
			b := &bios[i]
			b.Rearm()
			b.Op, b.Sector = blk.Write, block*thinBlock+uint64(i)*8
			b.SetData(buf)
			b.End = func(*blk.Bio) { done <- struct{}{} }
			d.Submit(b)
		}
		for range bios {
			<-done
		}
	}
	return time.Since(start)
}
