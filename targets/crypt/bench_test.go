package crypt_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
	"udm/targets/crypt"
)

type memory struct{}

const benchSectors = 16 << 10

func (memory) Open(string, bool) (blk.Device, dm.Number, error) {
	d := memdev.New(benchSectors)
	err := blk.WriteSectors(env.Real(), d, make([]byte, benchSectors*blk.SectorSize), 0, 0) // it has its memory before the clock runs
	return d, dm.Number{Major: 1}, err
}

// BenchmarkCrypt reads and writes through aes-xts over memory, 16 bios at a time. With
// -cpu 1,2 it has one worker and two; BenchmarkXTS of skcipher is the bare cipher.
func BenchmarkCrypt(b *testing.B) {
	for _, op := range []blk.Op{blk.Read, blk.Write} {
		for _, kib := range []int{4, 64, 128} {
			b.Run(fmt.Sprintf("%v-%dKiB", op, kib), func(b *testing.B) { benchCrypt(b, op, kib<<10) })
		}
	}
}

func benchCrypt(b *testing.B, op blk.Op, size int) {
	c := dm.NewControl(env.Real(), memory{}, crypt.Type(nil))
	d, err := c.Create("d", "", -1)
	specs, _ := dm.ParseTable(table(benchSectors, "aes-xts-plain64", key64, "0 a 0"))
	if err == nil {
		err = d.Load(specs, dm.Mode{Write: true})
	}
	if err == nil {
		err = d.Resume(context.Background(), false)
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	const depth = 16
	free := make(chan *blk.Bio, depth)
	var inFlight sync.WaitGroup
	for range depth {
		bio := &blk.Bio{End: func(bio *blk.Bio) { free <- bio; inFlight.Done() }}
		bio.SetData(make([]byte, size))
		free <- bio
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	for i := range uint64(b.N) {
		bio := <-free
		bio.Rearm()
		bio.SetData(bio.Bufs[0])
		bio.Op, bio.Sector = op, i*uint64(size/512)%benchSectors
		inFlight.Add(1)
		d.Submit(bio)
	}
	inFlight.Wait()
}
