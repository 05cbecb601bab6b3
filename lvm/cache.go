package lvm

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"udm/dm"
	"udm/targets/cache"
	"udm/targets/writecache"
)

// errCached: what a cache holds can be read only by a target that changes the cache.
var errCached = errors.New("its cache changes even when it is only read; activate it over clones, which leaves the disks as they are (--over-clones)")

// cache returns the line of a cached volume.
func (t *tree) cache(k *Cache) (dm.Line, error) {
	if t.options.ReadOnly {
		return nil, errCached
	}
	line := &cache.Line{}
	settings := k.CacheSettings
	var err error
	if pool, ok := t.lvs[k.Pool].Segments[0].Kind.(*CachePool); ok {
		settings = pool.CacheSettings
		line.Cache, line.Metadata, err = t.layers(pool.Data, pool.Metadata)
	} else {
		line.Cache, line.Metadata, err = t.cachevol(k)
	}
	if err == nil {
		line.Origin, err = t.layerOf(k.Origin)
	}
	settings.apply(line)
	return line, err
}

func (t *tree) layers(a, b string) (first, second string, err error) {
	if first, err = t.layerOf(a); err == nil {
		second, err = t.layerOf(b)
	}
	return first, second, err
}

// cachevol adds the two parts of a cachevol.
func (t *tree) cachevol(k *Cache) (data, metadata string, err error) {
	below, err := t.layerOf(k.Pool)
	if err != nil {
		return "", "", err
	}
	l := t.lvs[k.Pool]
	part := func(layer string, p Part) (string, error) {
		if n := t.sectors(l); p.Len == 0 || p.Start > n || p.Len > n-p.Start {
			return "", fmt.Errorf("the %s of its cache does not lie in %s", layer, l.Name)
		}
		err := t.add(l, layer, layer, l.Writable(), func() ([]Line, error) { return whole(p.Len, linearLine(below, p.Start)), nil })
		return "/dev/mapper/" + DeviceName(t.Name, l.Name, layer), err
	}
	if data, err = part("cdata", k.Data); err == nil {
		metadata, err = part("cmeta", k.Metadata)
	}
	return data, metadata, err
}

const (
	migration        = "migration_threshold"
	defaultMigration = 2048 // sectors
	chunksMoved      = 8    // the smallest threshold with which a cache gets on
)

// apply completes a line as LVM does: it raises the threshold so that chunks can be
// moved at all, and leaves it out if it is the default.
func (s *CacheSettings) apply(line *cache.Line) {
	line.BlockSectors, line.Policy = s.ChunkSize, s.Policy
	if s.Format == 2 {
		line.Features = append(line.Features, "metadata2")
	}
	line.Features = append(line.Features, s.Mode)
	if line.Policy == "" {
		line.Policy = "mq" // a text of the time when there was no other
	}
	threshold := uint64(defaultMigration)
	var others []string
	for _, o := range s.Policies {
		switch {
		case o.Name == migration:
			threshold = o.Value
		case !strings.EqualFold(line.Policy, "smq"): // which has no other settings
			others = append(others, o.Name, strconv.FormatUint(o.Value, 10))
		}
	}
	if threshold = max(threshold, chunksMoved*s.ChunkSize); threshold != defaultMigration {
		line.PolicyArgs = []string{migration, strconv.FormatUint(threshold, 10)}
	}
	line.PolicyArgs = append(line.PolicyArgs, others...)
}

// writecache returns the line of a volume with a cache for writes.
func (t *tree) writecache(k *Writecache) (dm.Line, error) {
	if t.options.ReadOnly {
		return nil, errCached
	}
	of := k.Settings
	line := &writecache.Line{
		BlockSize: uint32(k.BlockSize), HighWatermark: of["high_watermark"], LowWatermark: of["low_watermark"], WritebackJobs: of["writeback_jobs"],
		AutocommitBlocks: of["autocommit_blocks"], AutocommitTime: of["autocommit_time"], MaxAge: of["max_age"], PauseWriteback: of["pause_writeback"],
		Cleaner: of["cleaner"] != nil && *of["cleaner"] != 0, MetadataOnly: of["metadata_only"] != nil,
	}
	if line.BlockSize == 0 {
		line.BlockSize = 4096
	}
	var err error
	line.Cache, line.Origin, err = t.layers(k.Cache, k.Origin)
	return line, err
}
