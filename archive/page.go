package archive

import (
	"cmp"
	"context"
	"fmt"
	"slices"
)

// pageSectors is what a page has the contents of.
const pageSectors = 1 << 30 / sector

// storeContents makes the index: in version 1 of what its extents need, later of pages, of
// which those are stored that no base has.
func (b *Backup) storeContents() error {
	if b.a.version == 1 {
		b.x.contents = b.x.only(b.x.extents)
		return nil
	}
	var pages []extent
	for rest := b.x.extents; len(rest) > 0; {
		p := extent{sector: rest[0].sector / pageSectors * pageSectors, sectors: pageSectors}
		n := slices.IndexFunc(rest, func(e extent) bool { return e.sector >= p.end() })
		if n < 0 {
			n = len(rest)
		}
		var err error
		of := b.x.only(rest[:n])
		if p.chunk, err = b.chunk(of.append(nil)); err != nil {
			return err
		}
		pages, rest = append(pages, p), rest[n:]
	}
	b.x.pages = b.x.only(pages)
	return nil
}

// fill reads the contents of an index from its pages.
func (a *Archive) fill(ctx context.Context, x *index) error {
	return a.fillFrom(ctx, x, x.pages.extents)
}

// fillFrom reads the contents that are in some of the pages of an index.
func (a *Archive) fillFrom(ctx context.Context, x *index, pages []extent) error {
	if len(pages) == 0 {
		return nil
	}
	byPlace := make([]int, len(pages))
	for i := range byPlace {
		byPlace[i] = i
	}
	slices.SortFunc(byPlace, func(i, j int) int {
		p, q := x.pages.place(pages[i].chunk), x.pages.place(pages[j].chunk)
		return cmp.Or(cmp.Compare(p.pack, q.pack), cmp.Compare(p.offset, q.offset))
	})
	read := make([]*contents, len(pages))
	for rest := byPlace; len(rest) > 0; {
		n := x.near(pages, rest)
		if err := a.readPages(ctx, x, pages, rest[:n], read); err != nil {
			return fmt.Errorf("the index of snapshot %s: %w", x.ID, err)
		}
		rest = rest[n:]
	}
	b := newBuilder()
	for _, c := range read {
		for _, e := range c.extents {
			b.add(c, e)
		}
	}
	x.contents = b.contents
	return nil
}

// unseen are the pages of an index that were not seen.
func (x *index) unseen(seen map[place]bool) (list []extent) {
	for _, e := range x.pages.extents {
		if !seen[x.pages.place(e.chunk)] {
			list = append(list, e)
		}
	}
	return list
}

// maxGap is what is read in vain to save a request.
const maxGap = 256 << 10

// near is how many pages, in order of places, are read with one request.
func (x *index) near(pages []extent, order []int) int {
	for n := 1; n < len(order); n++ {
		p, q := x.pages.chunks[pages[order[n-1]].chunk], x.pages.chunks[pages[order[n]].chunk]
		if p.pack != q.pack || q.offset-p.offset-p.length > maxGap {
			return n
		}
	}
	return len(order)
}

// readPages reads pages that are near each other.
func (a *Archive) readPages(ctx context.Context, x *index, pages []extent, order []int, read []*contents) error {
	at := func(i int) location { return x.pages.chunks[pages[i].chunk] }
	first, last := at(order[0]), at(order[len(order)-1])
	whole := location{pack: first.pack, offset: first.offset, length: last.offset + last.length - first.offset}
	b, err := a.blob(ctx, &x.pages, whole)
	if err != nil {
		return err
	}
	for _, i := range order {
		l := at(i)
		from := uint64(l.offset - first.offset)
		if from+uint64(l.length) > uint64(len(b)) {
			return errBlob
		}
		p, err := a.openChunk(&x.pages, l, b[from:from+uint64(l.length)])
		if err == nil {
			read[i], err = x.readPage(p, pages[i])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readPage reads the contents of a page, which must be of its sectors and of the device's.
func (x *index) readPage(p []byte, page extent) (*contents, error) {
	c := new(contents)
	err := c.read(&fields{b: p})
	if err == nil && !(c.ordered() && c.within(page.sector, min(page.end(), x.sectors()))) {
		err = errBlob
	}
	return c, err
}
