package archive

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

var le = binary.LittleEndian

// Info tells about a snapshot.
type Info struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`              // of the snapshot
	Size    uint64    `json:"size"`              // bytes
	Created time.Time `json:"created"`           // when it was archived
	Content string    `json:"content,omitempty"` // id of the content, as udm send has it
	From    string    `json:"from,omitempty"`    // ID of the snapshot whose changes were read
	Read    uint64    `json:"read"`              // bytes of data that were read
	Stored  uint64    `json:"stored"`            // bytes that were added to the store
}

// location is where a chunk lies.
type location struct {
	id     ID
	pack   uint32 // index in packs
	offset uint32
	length uint32 // of the blob
}

// extent is a run of a snapshot's sectors that a chunk has. What no extent has is zeroes.
type extent struct {
	sector  uint64
	sectors uint32
	chunk   uint32 // index in chunks
	skip    uint32 // sectors of the chunk before it
}

func (e *extent) end() uint64 { return e.sector + uint64(e.sectors) }

// index is what a snapshot holds.
type index struct {
	Info
	packs   []string
	chunks  []location
	extents []extent
}

// Objects that hold an index begin with a mark and the checksum of what follows. In place of
// an index there may be a mark that there is no snapshot of that id, and will never be one.
const (
	indexMark = "udmsnap1"
	goneMark  = "udmabort"
)

const (
	locationSize = 32 + 3*4
	extentSize   = 8 + 3*4
)

// encode returns the object of an index.
func (x *index) encode(c *codec) ([]byte, error) {
	info, err := json.Marshal(x.Info)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	put := func(p []byte) {
		b.Write(le.AppendUint32(nil, uint32(len(p))))
		b.Write(p)
	}
	put(info)
	packs, err := json.Marshal(x.packs)
	if err != nil {
		return nil, err
	}
	put(packs)
	b.Write(le.AppendUint32(nil, uint32(len(x.chunks))))
	for _, l := range x.chunks {
		p := append([]byte(nil), l.id[:]...)
		b.Write(le.AppendUint32(le.AppendUint32(le.AppendUint32(p, l.pack), l.offset), l.length))
	}
	b.Write(le.AppendUint32(nil, uint32(len(x.extents))))
	for _, e := range x.extents {
		p := le.AppendUint64(nil, e.sector)
		b.Write(le.AppendUint32(le.AppendUint32(le.AppendUint32(p, e.sectors), e.chunk), e.skip))
	}
	body := c.seal("snapshot "+x.ID, b.Bytes())
	sum := sha256.Sum256(body)
	return slices.Concat([]byte(indexMark), sum[:], body), nil
}

var errGone = errors.New("the snapshot was removed, or its backup was given up")

func isGone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, errGone) }

// decode reads the object of an index.
func decode(c *codec, id string, p []byte) (*index, error) {
	wrong := func(why error) error { return fmt.Errorf("the index of snapshot %s: %w", id, why) }
	if bytes.HasPrefix(p, []byte(goneMark)) {
		return nil, errGone
	}
	head := len(indexMark) + sha256.Size
	if len(p) < head || string(p[:len(indexMark)]) != indexMark || sha256.Sum256(p[head:]) != [32]byte(p[len(indexMark):head]) {
		return nil, wrong(errBlob)
	}
	b, err := c.open("snapshot "+id, p[head:])
	if err != nil {
		return nil, wrong(err)
	}
	r := fields{b: b}
	x := &index{}
	err = errors.Join(json.Unmarshal(r.bytes(uint64(r.u32())), &x.Info), json.Unmarshal(r.bytes(uint64(r.u32())), &x.packs))
	if err != nil {
		return nil, wrong(err)
	}
	x.chunks = make([]location, r.count(locationSize))
	for i := range x.chunks {
		l := &x.chunks[i]
		copy(l.id[:], r.bytes(32))
		l.pack, l.offset, l.length = r.u32(), r.u32(), r.u32()
	}
	x.extents = make([]extent, r.count(extentSize))
	for i := range x.extents {
		x.extents[i] = extent{r.u64(), r.u32(), r.u32(), r.u32()}
	}
	if r.short || len(r.b) > 0 || x.ID != id || !x.sound() {
		return nil, wrong(errBlob)
	}
	return x, nil
}

// sound reports whether an index refers to nothing that is not there.
func (x *index) sound() bool {
	at := uint64(0)
	for _, e := range x.extents {
		if e.sector < at || e.sectors == 0 || e.end() > (x.Size+511)/512 || int(e.chunk) >= len(x.chunks) || uint64(e.skip)+uint64(e.sectors) > chunkSectors {
			return false
		}
		at = e.end()
	}
	return !slices.ContainsFunc(x.chunks, func(l location) bool { return int(l.pack) >= len(x.packs) })
}

// fields takes numbers apart.
type fields struct {
	b     []byte
	short bool
}

func (r *fields) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.short, r.b = true, nil
		return make([]byte, min(n, 64))
	}
	p := r.b[:n]
	r.b = r.b[n:]
	return p
}

func (r *fields) u32() uint32 { return le.Uint32(r.bytes(4)) }
func (r *fields) u64() uint64 { return le.Uint64(r.bytes(8)) }

// count is the number of entries of a size, which have to be there.
func (r *fields) count(size int) int {
	n := int(r.u32())
	if n > len(r.b)/size {
		r.short, n = true, 0
	}
	return n
}

// from is the index of the first extent that ends after a sector.
func (x *index) from(sector uint64) int {
	i, _ := slices.BinarySearchFunc(x.extents, sector, func(e extent, s uint64) int {
		if e.end() <= s {
			return -1
		}
		return cmp.Compare(1, 0)
	})
	return i
}
