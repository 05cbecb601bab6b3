package leaf_test

import (
	"bytes"
	"fmt"
	"log"

	"udm/blk"
	"udm/blk/checkdev"
	"udm/env"
)

// counting is a read-only leaf whose sectors are full of their number.
type counting struct{ sectors uint64 }

// Submit may complete a bio at once or later, on any goroutine.
func (d counting) Submit(b *blk.Bio) {
	if b.Op != blk.Read {
		b.Complete(blk.NotSupported)
		return
	}
	data := make([]byte, 0, b.Bytes())
	for s := b.Sector; s < b.EndSector(); s++ {
		data = append(data, bytes.Repeat([]byte{byte(s)}, blk.SectorSize)...)
	}
	b.CopyIn(data)
	b.Complete(blk.OK)
}

// Limits tell what the leaf can do; checkdev emulates the rest.
func (d counting) Limits() blk.Limits {
	l := blk.DefaultLimits(d.sectors)
	l.ReadOnly = true
	return l
}

func (d counting) Close() error   { return nil }
func (d counting) String() string { return "counting" }

// A leaf of one's own. Package blktest tests it; as a name in tables it is an entry
// of the list schemes.
func Example() {
	d := checkdev.New(counting{sectors: 100}, checkdev.Options{})
	f := blk.NewFile(env.Real(), d)
	p := make([]byte, 2)
	if _, err := f.ReadAt(p, 7*blk.SectorSize-1); err != nil {
		log.Fatal(err)
	}
	fmt.Println(p, f.Size())
	_, err := f.WriteAt(p, 0)
	fmt.Println(err)
	// Output:
	// [6 7] 51200
	// counting: byte 0: read-only device
}
