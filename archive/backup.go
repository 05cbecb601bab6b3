package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// BackupOptions say what is archived.
type BackupOptions struct {
	Name string // of the snapshot
	Size uint64 // bytes
	// Base is the snapshot whose changes follow. Its content is what is not told of. "": all
	// follows, and the rest is zeroes.
	Base string
	// Like is a snapshot whose chunks are not stored again. "": none but Base.
	Like string
}

// packSize is when a pack is stored. A chunk more may be in it.
const packSize = 32 << 20

// maxPieces is in how many extents a chunk's range may be, before it is stored anew.
const maxPieces = 64

// Backup is a snapshot that is being archived: data and zeroes in order, then Commit or
// Abort. The package comment says what is in the store at each moment.
type Backup struct {
	a     *Archive
	ctx   context.Context
	lease lease
	base  *index // nil: none
	x     index
	at    uint64 // sector up to which all is told of

	known  map[ID]uint32     // chunks and pages by their names
	packed map[string]uint32 // packs of x by their keys
	pack   bytes.Buffer      // not stored yet
	serial int               // of pack

	slot  uint64   // that pieces are in
	piece []extent // changes of the slot: data by their place in data, zeroes have chunk zeroes
	data  []byte
	kept  uint64 // sector before which all of the base was dealt with
}

// zeroes stands for the chunk of an extent without one.
const zeroes = ^uint32(0)

// Begin begins a backup.
func (a *Archive) Begin(ctx context.Context, o BackupOptions) (*Backup, error) {
	b := &Backup{a: a, ctx: ctx, known: map[ID]uint32{}, packed: map[string]uint32{}}
	b.x.Info = Info{ID: newID(), Name: o.Name, Size: o.Size, Created: a.now().UTC()}
	b.lease = lease{ID: b.x.ID}
	if a.codec.nameKey == nil {
		b.lease.Name = o.Name
	}
	for _, id := range []string{o.Base, o.Like} {
		if id != "" {
			b.lease.Bases = append(b.lease.Bases, id)
		}
	}
	if err := a.writeLease(ctx, &b.lease, a.store.PutNew); err != nil {
		return nil, err
	}
	if err := b.open(o); err != nil {
		return nil, errors.Join(err, b.Abort())
	}
	return b, nil
}

// open reads the bases: after the lease is there, nobody frees what they have.
func (b *Backup) open(o BackupOptions) error {
	for _, id := range b.lease.Bases {
		x, err := b.a.index(b.ctx, id)
		if err == nil {
			err = b.a.fill(b.ctx, x)
		}
		if err != nil {
			return fmt.Errorf("the base of the backup: %w", err)
		}
		b.adopt(&x.contents, id == o.Base)
		b.adopt(&x.pages, false)
		if id == o.Base {
			b.base, b.x.From = x, id
		}
	}
	return nil
}

// adopt makes chunks of another index known. If they are needed anyway, as the first ones,
// they have the same numbers in both.
func (b *Backup) adopt(c *contents, needed bool) {
	for _, l := range c.chunks {
		if _, ok := b.known[l.id]; ok && !needed {
			continue
		}
		l.pack = b.packOf(c.packs[l.pack])
		b.known[l.id] = uint32(len(b.x.chunks))
		b.x.chunks = append(b.x.chunks, l)
	}
}

func (b *Backup) packOf(key string) uint32 {
	n, ok := b.packed[key]
	if !ok {
		n = uint32(len(b.x.packs))
		b.packed[key] = n
		b.x.packs = append(b.x.packs, key)
	}
	return n
}

var errOrder = errors.New("what is archived is not in order, or not within the size")

// Data tells of data. Offset and length are multiples of 512, but for the end.
func (b *Backup) Data(offset uint64, p []byte) error {
	b.x.Read += uint64(len(p))
	return b.tell(offset, uint64(len(p)), p)
}

// Zero tells of zeroes.
func (b *Backup) Zero(offset, length uint64) error { return b.tell(offset, length, nil) }

// tell cuts what is told at the bounds of slots.
func (b *Backup) tell(offset, length uint64, p []byte) error {
	end := offset + length
	if offset%sector != 0 || end < offset || end > b.x.Size || end%sector != 0 && end != b.x.Size || offset/sector < b.at {
		return errOrder
	}
	for at, stop := offset/sector, (end+sector-1)/sector; at < stop; {
		n := min(stop, (at/chunkSectors+1)*chunkSectors) - at
		if err := b.enter(at / chunkSectors); err != nil {
			return err
		}
		e := extent{sector: at, sectors: uint32(n), chunk: zeroes}
		if p != nil {
			part := p[:min(uint64(len(p)), n*sector)]
			p = p[len(part):]
			e.chunk, e.skip = 0, uint32(len(b.data)/sector)
			b.data = append(b.data, part...)
			b.data = append(b.data, make([]byte, n*sector-uint64(len(part)))...)
		}
		b.piece = append(b.piece, e)
		at += n
		b.at = at
	}
	return nil
}

// enter goes to a slot, and finishes the one before.
func (b *Backup) enter(slot uint64) error {
	if slot == b.slot {
		return nil
	}
	err := b.leave()
	b.slot = slot
	return err
}

// leave stores the data of a slot, and makes its extents.
func (b *Backup) leave() error {
	if len(b.piece) == 0 {
		return nil
	}
	if len(b.data) > 0 {
		n, err := b.chunk(b.data)
		if err != nil {
			return err
		}
		for i := range b.piece {
			if b.piece[i].chunk != zeroes {
				b.piece[i].chunk = n
			}
		}
	}
	begin := b.slot * chunkSectors
	b.keepRange(b.kept, begin)
	first := len(b.x.extents)
	at := begin
	for _, e := range b.piece {
		b.keepRange(at, e.sector)
		if e.chunk != zeroes {
			b.add(e)
		}
		at = e.end()
	}
	b.keepRange(at, begin+chunkSectors)
	b.piece, b.data = b.piece[:0], b.data[:0]
	if len(b.x.extents)-first > maxPieces {
		return b.compact(first, begin)
	}
	return nil
}

// keepRange takes over what the base has in a range, and notes that all before its end was
// dealt with.
func (b *Backup) keepRange(begin, end uint64) {
	if b.base != nil {
		end := min(end, b.x.sectors())
		for i := b.base.from(begin); i < len(b.base.extents) && b.base.extents[i].sector < end; i++ {
			e := b.base.extents[i]
			from, to := max(e.sector, begin), min(e.end(), end)
			if from < to {
				b.add(extent{from, uint32(to - from), e.chunk, e.skip + uint32(from-e.sector)})
			}
		}
	}
	b.kept = max(b.kept, end)
}

// add adds an extent, joined with the last one if they are one run.
func (b *Backup) add(e extent) {
	if n := len(b.x.extents); n > 0 {
		l := &b.x.extents[n-1]
		if l.end() == e.sector && l.chunk == e.chunk && l.skip+l.sectors == e.skip && l.sector/chunkSectors == e.sector/chunkSectors {
			l.sectors += e.sectors
			return
		}
	}
	b.x.extents = append(b.x.extents, e)
}

// compact stores the range of a slot that is in too many pieces as one chunk.
func (b *Backup) compact(first int, begin uint64) error {
	var data []byte
	pieces := append([]extent(nil), b.x.extents[first:]...)
	for i := range pieces {
		e := &pieces[i]
		p, err := b.load(e.chunk)
		if err != nil {
			return err
		}
		skip := uint32(len(data) / sector)
		data = append(data, p[e.skip*sector:(e.skip+e.sectors)*sector]...)
		e.skip = skip
	}
	n, err := b.chunk(data)
	b.x.extents = b.x.extents[:first]
	for _, e := range pieces {
		e.chunk = n
		b.add(e)
	}
	return err
}

// load reads a chunk, also one that is not stored yet.
func (b *Backup) load(n uint32) ([]byte, error) {
	l := b.x.chunks[n]
	if b.x.packs[l.pack] == b.packKey() {
		return b.a.codec.chunk(l.id, b.pack.Bytes()[l.offset:l.offset+l.length])
	}
	return b.a.chunk(b.ctx, &b.x.contents, l)
}

// packKey is the key of the pack that is not stored yet.
func (b *Backup) packKey() string { return fmt.Sprintf("%s/%06d", b.x.ID, b.serial) }

// chunk packs a chunk, unless it is known.
func (b *Backup) chunk(p []byte) (uint32, error) {
	id := b.a.codec.id(p)
	if n, ok := b.known[id]; ok {
		return n, nil
	}
	blob := b.a.codec.sealChunk(id, p)
	b.pack.Write(le.AppendUint32(nil, uint32(len(blob))))
	b.pack.Write(id[:])
	n := uint32(len(b.x.chunks))
	b.x.chunks = append(b.x.chunks, location{id, b.packOf(b.packKey()), uint32(b.pack.Len()), uint32(len(blob))})
	b.pack.Write(blob)
	b.known[id] = n
	if b.pack.Len() >= packSize {
		return n, b.flush()
	}
	return n, b.renew()
}

// flush stores the pack.
func (b *Backup) flush() error {
	if b.pack.Len() == 0 {
		return nil
	}
	if err := b.renew(); err != nil {
		return err
	}
	if err := b.a.store.PutNew(b.ctx, packs+b.packKey(), b.pack.Bytes()); err != nil {
		return fmt.Errorf("storing a pack: %w", err)
	}
	b.serial++
	b.x.Stored += uint64(b.pack.Len())
	b.pack.Reset()
	return nil
}

func (b *Backup) renew() error {
	if b.a.now().Sub(b.lease.Renewed) < renewal {
		return nil
	}
	return b.a.writeLease(b.ctx, &b.lease, b.a.store.Put)
}

// Commit makes the snapshot: it is there as a whole, or not at all. content is the id of
// what it holds, which may be empty.
func (b *Backup) Commit(content string) (Info, error) {
	b.x.Content = content
	err := b.leave()
	if err == nil {
		b.keepRange(b.kept, b.x.sectors())
		err = b.storeContents()
	}
	if err == nil {
		err = b.flush()
	}
	if err == nil {
		err = b.publish()
	}
	if err != nil {
		return b.x.Info, errors.Join(err, b.Abort())
	}
	return b.x.Info, b.a.store.Delete(b.ctx, writers+b.x.ID)
}

// publish stores the index. Of a request that failed, end finds out whether it was carried
// out, and otherwise sees that it never will be.
func (b *Backup) publish() error {
	p, err := b.x.encode(b.a.codec, b.a.version)
	if err != nil {
		return err
	}
	err = b.a.store.PutNew(b.ctx, snapshots+b.x.ID, p)
	if err == nil {
		return nil
	}
	if ended, eerr := b.a.end(context.WithoutCancel(b.ctx), b.lease); eerr == nil && !ended {
		return nil
	}
	if errors.Is(err, fs.ErrExist) {
		return errors.New("this backup was taken for dead, because it made no progress for an hour, and was given up; make it again")
	}
	return err
}

// Abort gives a backup up and removes what it has stored. If that fails, Prune does it.
func (b *Backup) Abort() error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(b.ctx), time.Minute)
	defer cancel()
	ended, err := b.a.end(ctx, b.lease)
	if err != nil || !ended {
		return err
	}
	return b.a.sweepWriter(ctx, b.lease.ID)
}
