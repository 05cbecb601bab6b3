package lvm

import (
	"slices"
	"strconv"

	"udm/lvm/text"
)

const maxSectors32 = 1<<32 - 1

// places reads pairs of a name and an extent.
func (r *reader) places(name string) (ps []Place) {
	a := r.array(name)
	if len(a)%2 != 0 || len(a) == 0 {
		r.failAt(name, "want pairs of a volume and an extent")
		return nil
	}
	for ; len(a) > 0; a = a[2:] {
		volume, ok := a[0].(text.String)
		start, ok2 := a[1].(text.Int)
		if !ok || !ok2 || start < 0 {
			r.failAt(name, "want pairs of a volume and an extent")
			return nil
		}
		ps = append(ps, Place{string(volume), uint64(start)})
	}
	return ps
}

func readStriped(r *reader, s *Segment) Kind {
	k := &Striped{Stripes: r.places("stripes")}
	n := r.uint("stripe_count", maxSectors32)
	if n != uint64(len(k.Stripes)) {
		r.failAt("stripe_count", "it is %d, but there are %d stripes", n, len(k.Stripes))
	}
	if n > 1 {
		k.StripeSize = r.uint("stripe_size", maxSectors32)
		if k.StripeSize == 0 || s.Count%n != 0 {
			r.fail("%d extents do not divide into %d stripes of %d sectors", s.Count, n, k.StripeSize)
		}
	}
	return k
}

func readEmpty(*reader, *Segment) Kind { return &Empty{} }

func readSnapshot(r *reader, _ *Segment) Kind {
	k := &Snapshot{Origin: r.string("origin"), ChunkSize: r.uint("chunk_size", maxSectors32)}
	if k.Merging = r.has("merging_store"); k.Merging {
		k.COW = r.string("merging_store")
		if r.has("cow_store") {
			r.failAt("cow_store", "the snapshot also has a merging store")
		}
		return k
	}
	k.COW = r.string("cow_store")
	return k
}

func readThinPool(r *reader, _ *Segment) Kind {
	k := &ThinPool{
		Metadata: r.string("metadata"), Data: r.string("pool"), Transaction: r.uint("transaction_id", 1<<63-1),
		ChunkSize: r.uint("chunk_size", maxSectors32), Discards: r.stringOr("discards", "passdown"),
		Zero: r.uintOr("zero_new_blocks", 1, 0) == 1,
	}
	switch k.Discards {
	case "passdown", "nopassdown", "ignore":
	default:
		r.failAt("discards", "%q is not supported", k.Discards)
	}
	k.Messages = readMessages(r)
	return k
}

// readMessages reads message1, message2 and so on.
func readMessages(r *reader) (ms []Message) {
	for i := 1; ; i++ {
		e := r.entry["message"+strconv.Itoa(i)]
		if e == nil {
			return ms
		}
		if e.Section == nil {
			r.failAt(e.Name, "want a section")
			return nil
		}
		sub := r.inside(e.Name, e.Section)
		m := Message{Create: sub.stringOr("create", "")}
		if m.Create == "" {
			m.Delete = sub.uint("delete", maxThinID)
		}
		ms = append(ms, m)
	}
}

// maxThinID is the highest id of a thin device.
const maxThinID = 1<<24 - 1

func readThin(r *reader, _ *Segment) Kind {
	return &Thin{
		Pool: r.string("thin_pool"), Transaction: r.uint("transaction_id", 1<<63-1), Device: uint32(r.uint("device_id", maxThinID)),
		External: r.stringOr("external_origin", ""), Origin: r.stringOr("origin", ""), Merge: r.stringOr("merge", ""),
	}
}

func readMirror(r *reader, _ *Segment) Kind {
	k := &Mirror{Log: r.stringOr("mirror_log", ""), RegionSize: r.uintOr("region_size", maxSectors32, 0), Moved: r.uintOr("extents_moved", maxSectors32, 0), Mirrors: r.places("mirrors")}
	if n := r.uint("mirror_count", maxSectors32); n != uint64(len(k.Mirrors)) {
		r.failAt("mirror_count", "it is %d, but there are %d mirrors", n, len(k.Mirrors))
	}
	return k
}

// readRaid reads any level: "raids" is pairs of metadata and image, "raid0_lvs" is
// only images.
func readRaid(r *reader, _ *Segment) Kind {
	k := &Raid{StripeSize: r.uintOr("stripe_size", maxSectors32, 0), RegionSize: r.uintOr("region_size", maxSectors32, 0), Copies: r.uintOr("data_copies", maxSectors32, 0)}
	k.Images = r.strings("raid0_lvs")
	pairs := r.strings("raids")
	if len(pairs)%2 != 0 || len(pairs)+len(k.Images) == 0 {
		r.failAt("raids", "want pairs of metadata and image")
		return k
	}
	for ; len(pairs) > 0; pairs = pairs[2:] {
		k.Meta, k.Images = append(k.Meta, pairs[0]), append(k.Images, pairs[1])
	}
	name := "device_count"
	if r.has("stripe_count") {
		name = "stripe_count"
	}
	if n := r.uint(name, maxSectors32); n != uint64(len(k.Images)) {
		r.failAt(name, "it is %d, but there are %d images", n, len(k.Images))
	}
	return k
}

func readCachePool(r *reader, _ *Segment) Kind {
	return &CachePool{Data: r.string("data"), Metadata: r.string("metadata"), CacheSettings: readCacheSettings(r)}
}

func readCacheSettings(r *reader) CacheSettings {
	s := CacheSettings{
		Format: r.uintOr("metadata_format", maxSectors32, 1), ChunkSize: r.uintOr("chunk_size", maxSectors32, 0),
		Mode: r.stringOr("cache_mode", "writethrough"), Policy: r.stringOr("policy", ""),
	}
	e := r.entry["policy_settings"]
	if e == nil {
		return s
	}
	if e.Section == nil {
		r.failAt(e.Name, "want a section")
		return s
	}
	sub := r.inside(e.Name, e.Section)
	for _, o := range e.Section.Entries {
		s.Policies = append(s.Policies, Setting{o.Name, sub.uint(o.Name, maxSectors32)})
	}
	return s
}

func readCache(r *reader, s *Segment) Kind {
	k := &Cache{Pool: r.string("cache_pool"), Origin: r.string("origin")}
	if slices.Contains(s.TypeFlags, "CACHE_USES_CACHEVOL") {
		k.CacheSettings = readCacheSettings(r)
		k.Metadata, k.Data = readPart(r, "metadata"), readPart(r, "data")
	}
	return k
}

func readPart(r *reader, name string) Part {
	return Part{r.uint(name+"_start", maxSector), r.uint(name+"_len", maxSector)}
}

func readWritecache(r *reader, _ *Segment) Kind {
	k := &Writecache{Origin: r.string("origin"), Cache: r.string("writecache"), BlockSize: r.uintOr("writecache_block_size", maxSectors32, 0), Settings: map[string]*uint64{}}
	for _, name := range writecacheSettings {
		if r.has(name) {
			n := r.uint(name, maxSectors32)
			k.Settings[name] = &n
		}
	}
	return k
}

// writecacheSettings are those that have numbers in the text.
var writecacheSettings = []string{
	"high_watermark", "low_watermark", "writeback_jobs", "autocommit_blocks", "autocommit_time", "max_age", "pause_writeback", "cleaner", "metadata_only",
}

func readIntegrity(r *reader, _ *Segment) Kind {
	return &Integrity{
		Origin: r.string("origin"), Metadata: r.stringOr("meta_dev", ""), DataSectors: r.uint("data_sectors", maxSector),
		Mode: r.stringOr("mode", ""), BlockSize: r.uintOr("block_size", maxSectors32, 0),
	}
}

func readVDO(r *reader, _ *Segment) Kind {
	return &VDO{Pool: r.string("vdo_pool"), Offset: r.uintOr("vdo_offset", maxSector, 0)}
}

func readVDOPool(r *reader, _ *Segment) Kind { return &VDOPool{Data: r.string("data")} }
