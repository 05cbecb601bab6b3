package archive

import (
	"bytes"
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

// sectors is the size, rounded up.
func (i *Info) sectors() uint64 { return (i.Size + sector - 1) / sector }

// index is what a snapshot holds. In an archive of version 1 its object has the contents; of
// later ones it has the chunks that the contents are in, a page for each gibibyte of the
// device, so that snapshots share the pages in which they are alike.
type index struct {
	Info
	contents          // once they are read
	pages    contents // an extent for each page; empty in version 1
}

// Objects that hold an index begin with a mark and the checksum of what follows. In place of
// an index there may be a mark that there is no snapshot of that id, and will never be one.
const (
	wholeMark = "udmsnap1"
	indexMark = "udmsnap2"
	goneMark  = "udmabort"
)

// encode returns the object of an index, in an archive of some version.
func (x *index) encode(c *codec, version int) ([]byte, error) {
	info, err := json.Marshal(x.Info)
	if err != nil {
		return nil, err
	}
	mark, held := indexMark, &x.pages
	if version == 1 {
		mark, held = wholeMark, &x.contents
	}
	body := c.seal("snapshot "+x.ID, held.append(appendBytes(nil, info)))
	sum := sha256.Sum256(body)
	return slices.Concat([]byte(mark), sum[:], body), nil
}

var errGone = errors.New("the snapshot was removed, or its backup was given up")

func isGone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, errGone) }

// decode reads the object of an index. Its pages are not read.
func decode(c *codec, id string, p []byte) (*index, error) {
	wrong := func(why error) error { return fmt.Errorf("the index of snapshot %s: %w", id, why) }
	if bytes.HasPrefix(p, []byte(goneMark)) {
		return nil, errGone
	}
	head := len(indexMark) + sha256.Size
	if len(p) < head || sha256.Sum256(p[head:]) != [32]byte(p[len(indexMark):head]) {
		return nil, wrong(errBlob)
	}
	x := &index{}
	held, sound := &x.pages, x.soundPages
	switch string(p[:len(indexMark)]) {
	case indexMark:
	case wholeMark:
		held, sound = &x.contents, x.sound
	default:
		return nil, wrong(errBlob)
	}
	b, err := c.open("snapshot "+id, p[head:])
	if err != nil {
		return nil, wrong(err)
	}
	r := fields{b: b}
	err = errors.Join(json.Unmarshal(r.bytes(uint64(r.u32())), &x.Info), held.read(&r))
	if err != nil {
		return nil, wrong(err)
	}
	if x.ID != id || !sound() {
		return nil, wrong(errBlob)
	}
	return x, nil
}

// sound reports whether the contents of an index are within the device, and of chunks.
func (x *index) sound() bool { return x.ordered() && x.within(0, x.sectors()) }

// soundPages reports whether the pages of an index are pages.
func (x *index) soundPages() bool {
	return x.pages.ordered() && !slices.ContainsFunc(x.pages.extents, func(e extent) bool {
		return e.sector%pageSectors != 0 || e.sectors != pageSectors || e.skip != 0 || e.sector >= x.sectors()
	})
}
