package leaf

import (
	"context"
	"path/filepath"
	"strings"
	"syscall"

	"udm/archive"
	"udm/archive/place"
	"udm/blk"
	"udm/blk/readdev"
	"udm/dm"
)

// parseArchive parses SNAPSHOT[,key=FILE]:STORE.
func parseArchive(name, rest string) (source, error) {
	spec, store, ok := strings.Cut(rest, ":")
	snapshot, key, _ := strings.Cut(spec, ",key=")
	if !ok || snapshot == "" || store == "" || key != "" && !filepath.IsAbs(key) {
		return source{}, dm.Errorf(syscall.EINVAL, "%s: it is archive:SNAPSHOT:STORE, or archive:SNAPSHOT,key=/FILE:STORE", name)
	}
	if !filepath.IsAbs(store) && !strings.Contains(store, "://") {
		return source{}, dm.Errorf(syscall.EINVAL, "%s: %q is not an absolute path", name, store)
	}
	return source{id: identity{name: rest}, open: func(o *Opener, write bool) (blk.Device, error) {
		if write {
			return nil, dm.Errorf(syscall.EACCES, "archived snapshots are read-only; use one as an origin, or restore it: udm archive restore %s %s", store, snapshot)
		}
		ctx := context.Background()
		a, err := place.OpenArchive(ctx, store, key)
		if err != nil {
			return nil, err
		}
		cache, err := chunks()
		if err != nil {
			return nil, err
		}
		s, err := a.Snapshot(ctx, snapshot, cache)
		if err != nil {
			return nil, err
		}
		return readdev.New(o.env, &archived{name: name, s: s}, s.Info().Size/blk.SectorSize), nil
	}}, nil
}

// archived is a snapshot in an archive as a source.
type archived struct {
	readdev.Last
	name string
	s    *archive.Snapshot
}

// Read implements [readdev.Source].
func (a *archived) Read(ctx context.Context, p []byte, sector uint64) error {
	return a.Note(a.s.Read(ctx, p, sector))
}

// maxArchived bounds an answer about extents.
const maxArchived = 1024

// Extents tells what is stored; the rest is holes.
func (a *archived) Extents(sector, sectors uint64) (list []blk.Extent, _ error) {
	at, end := sector, sector+sectors
	a.s.Extents(context.Background(), sector, func(first, n uint64) bool {
		from, to := max(first, at), min(first+n, end)
		if from >= to {
			return false
		}
		list = blk.AppendExtent(list, blk.Extent{Sector: at, Sectors: from - at})
		list = blk.AppendExtent(list, blk.Extent{Sector: from, Sectors: to - from, Data: true})
		at = to
		return len(list) < maxArchived
	})
	if len(list) < maxArchived {
		list = blk.AppendExtent(list, blk.Extent{Sector: at, Sectors: end - at})
	}
	return list, nil
}

func (a *archived) Close() error   { return nil }
func (a *archived) String() string { return a.name }
