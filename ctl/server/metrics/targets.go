package metrics

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"udm/blk"
	"udm/ctl"
	"udm/dm"
	"udm/pdata"
	"udm/targets/cache"
	"udm/targets/multipath"
	"udm/targets/snapshot"
	"udm/targets/thin"
	"udm/targets/writecache"
)

var (
	poolData      = gauge("udm_pool_data_bytes", "Size of the pool's data space.")
	poolDataUsed  = gauge("udm_pool_data_used_bytes", "Used data space of the pool.")
	poolMeta      = gauge("udm_pool_metadata_bytes", "Size of the pool's metadata space.")
	poolMetaUsed  = gauge("udm_pool_metadata_used_bytes", "Used metadata space of the pool.")
	poolID        = gauge("udm_pool_transaction", "Transaction ID of the pool.")
	poolMode      = gauge("udm_pool_mode", "1 for the current mode of the pool: rw, ro, out_of_data_space or fail.")
	poolCheck     = gauge("udm_pool_needs_check", "1 if the pool's metadata must be checked.")
	poolHeld      = gauge("udm_pool_held_root", "1 while a metadata snapshot of the pool is held.")
	commitSeconds = summary("udm_pool_commit_seconds", "Duration of the pool's commits.")
	commitLongest = gauge("udm_pool_commit_longest_seconds", "Duration of the longest commit since the pool was opened.")

	volumeMapped = gauge("udm_volume_mapped_bytes", "Space in the pool mapped by the volume, including shared blocks.")

	storeSize  = gauge("udm_store_bytes", "Size of the store of the clone or snapshot.")
	storeUsed  = gauge("udm_store_used_bytes", "Used space in the store.")
	storeFull  = gauge("udm_store_full", "1 if the store is full, so that writes fail.")
	storeLost  = gauge("udm_store_invalid", "1 if the snapshot is invalid and its contents are lost.")
	mergeLeft  = gauge("udm_merge_left_bytes", "Bytes that remain to be merged.")
	mergeFails = gauge("udm_merge_failed", "1 if the merge stopped because of an error.")

	cacheSize     = gauge("udm_cache_bytes", "Size of the cache.")
	cacheUsed     = gauge("udm_cache_used_bytes", "Space in the cache used by blocks of the origin.")
	cacheDirty    = gauge("udm_cache_dirty_bytes", "Space in the cache that must be written back to the origin.")
	cacheHits     = counter("udm_cache_hits_total", "Number of I/Os whose block was in the cache.")
	cacheMisses   = counter("udm_cache_misses_total", "Number of I/Os whose block was not in the cache.")
	cachePromoted = counter("udm_cache_promotions_total", "Number of blocks promoted to the cache.")
	cacheDemoted  = counter("udm_cache_demotions_total", "Number of blocks demoted from the cache.")
	cacheReadOnly = gauge("udm_cache_read_only", "1 if the cache's metadata are read-only.")
	cacheCheck    = gauge("udm_cache_needs_check", "1 if the cache's metadata must be checked.")
	cacheAround   = counter("udm_cache_around_bytes_total", "Bytes written past the writecache to its origin.")
	cacheFailed   = gauge("udm_cache_failed", "1 if a disk of the writecache has failed, so that writes and flushes fail.")

	pathFailed  = gauge("udm_path_failed", "1 if the path of the multipath device has failed.")
	pathsUsable = gauge("udm_usable_paths", "Number of paths of the multipath device that have not failed.")
)

// target adds the metrics of a target's status line.
func (p *page) target(ctx context.Context, s ctl.Service, d ctl.Device, l ctl.Line) {
	ls := label("device", deviceLabel(d.Name))
	switch l.Target {
	case "thin-pool":
		if st, err := thin.ParsePoolStatus(l.Params); err == nil {
			p.pool(ls, st, poolBlock(ctx, s, d))
		}
	case "thin":
		if st, err := thin.ParseThinStatus(l.Params); err == nil && st.State == thin.Figures {
			p.set(volumeMapped, ls, float64(st.Mapped*blk.SectorSize))
		}
	case "snapshot", "snapshot-merge":
		if st, err := snapshot.ParseStatus(l.Params); err == nil {
			p.store(ls, st, l.Target == "snapshot-merge")
		}
	case "cache":
		if st, err := cache.ParseStatus(l.Params); err == nil {
			p.cache(d.Name, st)
		}
	case "writecache":
		if st, err := writecache.ParseStatus(l.Params); err == nil {
			p.writecache(d.Name, st, writecacheBlock(ctx, s, d))
		}
	case "multipath":
		if st, err := multipath.ParseStatus(l.Params); err == nil {
			p.multipath(d, st)
		}
	}
}

// modes are the modes of a pool, and fail, which the status reports as a state.
var modes = []string{string(thin.ReadWrite), string(thin.ReadOnly), string(thin.OutOfDataSpace), "fail"}

// pool adds the metrics of a pool with blocks of the given size in bytes.
func (p *page) pool(ls labels, st *thin.PoolStatus, block uint64) {
	now := string(st.Mode)
	if st.State == thin.Fail {
		now = "fail"
	}
	for _, m := range modes {
		p.is(poolMode, append(labels{ls[0]}, label("mode", m)...), m == now)
	}
	p.is(poolCheck, ls, st.NeedsCheck || st.State == thin.Fail)
	if st.State != thin.Figures {
		return
	}
	p.set(poolData, ls, float64(st.TotalData*block))
	p.set(poolDataUsed, ls, float64(st.UsedData*block))
	p.set(poolMeta, ls, float64(st.TotalMetadata*pdata.BlockSize))
	p.set(poolMetaUsed, ls, float64(st.UsedMetadata*pdata.BlockSize))
	p.set(poolID, ls, float64(st.TransactionID))
	p.is(poolHeld, ls, st.HeldRoot != 0)
}

// poolBlock returns the size of a pool's blocks in bytes, from its table, or 0 if the table
// is not available.
func poolBlock(ctx context.Context, s ctl.Service, d ctl.Device) uint64 {
	l, _ := thin.ParsePoolLine(table(ctx, s, d))
	if l == nil {
		return 0
	}
	return l.BlockSectors * blk.SectorSize
}

// writecacheBlock is poolBlock for a writecache.
func writecacheBlock(ctx context.Context, s ctl.Service, d ctl.Device) uint64 {
	l, _ := writecache.ParseLine(table(ctx, s, d))
	if l == nil {
		return 0
	}
	return uint64(l.BlockSize)
}

// table returns the words of a table of one line, or none if it is not available.
func table(ctx context.Context, s ctl.Service, d ctl.Device) []string {
	full, err := s.Device(ctx, ctl.Query{Ref: ctl.Ref{Name: d.Name}, With: []ctl.With{ctl.WithTable}, Noflush: true})
	if err != nil || len(full.Table) != 1 {
		return nil
	}
	return dm.SplitWords(full.Table[0].Params)
}

// store adds the metrics of the store of a clone or snapshot.
func (p *page) store(ls labels, st *snapshot.Status, merging bool) {
	p.is(storeFull, ls, st.State == snapshot.Overflow || st.State == snapshot.Figures && st.Allocated >= st.Total)
	p.is(storeLost, ls, st.State == snapshot.Invalid)
	if merging {
		p.is(mergeFails, ls, st.State == snapshot.MergeFailed)
	}
	if st.State != snapshot.Figures {
		return
	}
	p.set(storeSize, ls, float64(st.Total*blk.SectorSize))
	p.set(storeUsed, ls, float64(st.Allocated*blk.SectorSize))
	if merging {
		p.set(mergeLeft, ls, float64((st.Allocated-min(st.Allocated, st.Metadata))*blk.SectorSize))
	}
}

// cache adds the metrics of a cache.
func (p *page) cache(name string, st *cache.Status) {
	ls := label("device", deviceLabel(name))
	p.is(cacheReadOnly, ls, st.ReadOnly || st.State != cache.Figures)
	p.is(cacheCheck, ls, st.NeedsCheck || st.State != cache.Figures)
	if st.State != cache.Figures {
		return
	}
	block := st.BlockSectors * blk.SectorSize
	p.set(cacheSize, ls, float64(st.Blocks*block))
	p.set(cacheUsed, ls, float64(st.Resident*block))
	p.set(cacheDirty, ls, float64(st.Dirty*block))
	p.hits(name, "read", st.ReadHits, st.ReadMisses)
	p.hits(name, "write", st.WriteHits, st.WriteMisses)
	p.set(cachePromoted, ls, float64(st.Promotions))
	p.set(cacheDemoted, ls, float64(st.Demotions))
}

func (p *page) hits(name, op string, hits, misses uint64) {
	ls := label("device", deviceLabel(name), "op", op)
	p.set(cacheHits, ls, float64(hits))
	p.set(cacheMisses, ls, float64(misses))
}

// writecache adds the metrics of a writecache with blocks of the given size in bytes. What
// is in it has to be written back.
func (p *page) writecache(name string, st *writecache.Status, block uint64) {
	ls := label("device", deviceLabel(name))
	used := float64((st.Blocks - min(st.Free, st.Blocks)) * block)
	p.set(cacheSize, ls, float64(st.Blocks*block))
	p.set(cacheUsed, ls, used)
	p.set(cacheDirty, ls, used)
	p.set(cacheAround, ls, float64(st.Around*block))
	p.is(cacheFailed, ls, st.Failed)
	p.hits(name, "read", st.ReadHits, st.Reads-min(st.ReadHits, st.Reads))
	hits := st.HitsUncommitted + st.HitsCommitted
	p.hits(name, "write", hits, st.Writes-min(hits, st.Writes))
}

// multipath adds the metrics of the paths of a device.
func (p *page) multipath(d ctl.Device, st *multipath.Status) {
	name, failed := deviceLabel(d.Name), make(map[string]bool)
	for _, g := range st.Groups {
		for _, path := range g.Paths {
			of := deviceLabel(pathName(d, path.Device))
			failed[of] = failed[of] || path.Failed // it may be in several groups
		}
	}
	for _, path := range slices.Sorted(maps.Keys(failed)) {
		p.is(pathFailed, label("device", name, "path", path), failed[path])
	}
	lost, all := st.Failed()
	p.set(pathsUsable, label("device", name), float64(all-lost))
}

// pathName returns the name of a path that a status calls by its number.
func pathName(d ctl.Device, number string) string {
	for _, dep := range d.Deps {
		if dep.Number.String() == number {
			return cmp.Or(dep.Source, dep.Name)
		}
	}
	return number
}
