// Package pool keeps the pool that containers' volumes live in: it makes the pool when
// it is first needed and grows it before it is full.
//
// The pool's files are sparse: a pool takes space on the host as its volumes are
// written, whatever its size is. The size is a limit, which [Keeper] raises in steps
// up to a maximum. A write that finds the pool full waits while it can grow. At the
// maximum it fails with ENOSPC at once, unless [Config.WaitWhenFull]; writes to blocks
// that have space go on. Removing volumes, or discarding, makes space again.
//
// Metadata that are full make a pool read-only, so they grow long before. They begin with
// room for many snapshots and are kept half free: at worst a write takes a block of
// metadata, where it copies 64 KiB of data that snapshots share, and the pool's own event
// comes when nearly all are used. So Keeper also looks every second.
package pool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"time"

	"udm/blk"
	"udm/ctl"
	"udm/dm"
	"udm/targets/thin"
	"udm/targets/thin/thinmeta"
	"udm/targets/thin/thintools"
	"udm/volume"
)

// Config describes a pool. Sizes are in bytes.
type Config struct {
	Name  string
	Dir   string // of its files, on the daemon's machine; "": the daemon's own
	First uint64 // size of a new pool
	Most  uint64 // it does not grow beyond
	// WaitWhenFull lets writes wait for space, for a minute, before they fail.
	WaitWhenFull bool
}

// Keeper makes and grows a pool. It is safe for concurrent use.
type Keeper struct {
	Config
	client ctl.Service
	log    *slog.Logger
	mu     sync.Mutex // a leaf but for the daemon's commands: one maker, one grower
}

// New returns the keeper of a pool.
func New(c Config, client ctl.Service, log *slog.Logger) *Keeper {
	return &Keeper{Config: c, client: client, log: log}
}

// A new pool has blocks of this size, and metadata for its size and so many volumes.
const blockSize, volumes = 64 << 10, 10_000

// Ensure makes the pool unless it is there.
func (k *Keeper) Ensure(ctx context.Context) error {
	o, err := k.client.Object(ctx, ctl.Object{Name: k.Name, Settled: true})
	switch {
	case err == nil && o.Kind != volume.Pool:
		return fmt.Errorf("%s is a %s, not a pool; name another pool, or rename it: udm rename", k.Name, o.Kind)
	case !errors.Is(err, syscall.ENXIO):
		return err
	}
	size := min(k.First, k.Most)
	err = k.client.CreatePool(ctx, volume.PoolSpec{Name: k.Name, Dir: k.Dir, Size: size, Block: blockSize,
		Metadata: min(thintools.MetadataSize(blockSize, size, volumes), mostMetadata), FailWhenFull: k.fails(size)})
	if errors.Is(err, syscall.EEXIST) || errors.Is(err, syscall.EBUSY) {
		return nil // somebody else was faster
	}
	return err
}

// fails reports whether writes to a full pool of this size should fail at once.
func (k *Keeper) fails(size uint64) bool { return size >= k.Most && !k.WaitWhenFull }

// Space is how much data a pool holds and may hold, in bytes.
type Space struct {
	Used, Size uint64
	metadata   struct{ used, size uint64 }
}

// Free is what is free now.
func (s Space) Free() uint64 { return s.Size - s.Used }

// Space asks the pool.
func (k *Keeper) Space(ctx context.Context) (Space, error) {
	s, _, err := k.look(ctx)
	return s, err
}

// look returns the space of the pool, and its table.
func (k *Keeper) look(ctx context.Context) (Space, *thin.PoolLine, error) {
	d, err := k.client.Device(ctx, ctl.Query{Ref: ctl.Ref{Name: k.Name}, With: []ctl.With{ctl.WithStatus, ctl.WithTable}, Noflush: true})
	if err != nil {
		return Space{}, nil, err
	}
	if len(d.Status) != 1 || len(d.Table) != 1 {
		return Space{}, nil, fmt.Errorf("the pool %s has no table; udm status %[1]s says why", d.Name)
	}
	st, err := thin.ParsePoolStatus(d.Status[0].Params)
	if err != nil {
		return Space{}, nil, err
	}
	if st.State != thin.Figures {
		return Space{}, nil, fmt.Errorf("the pool %s has failed; stop the daemon and run udm thin check on its metadata", d.Name)
	}
	l, err := thin.ParsePoolLine(strings.Fields(d.Table[0].Params))
	if err != nil {
		return Space{}, nil, err
	}
	block := l.BlockSectors * blk.SectorSize
	s := Space{Used: st.UsedData * block, Size: st.TotalData * block}
	s.metadata.used, s.metadata.size = st.UsedMetadata*metadataBlock, st.TotalMetadata*metadataBlock
	return s, l, nil
}

// The size of a block of metadata, and the most metadata that a pool can use.
const metadataBlock, mostMetadata = 4096, thinmeta.MaxMetadataBlocks * metadataBlock

// reserve is the part of a pool that is kept free: it grows when less is.
const reserve = 5

// Tend grows the pool if it is nearly full, and its metadata if they are half full, twofold,
// up to the maximum.
func (k *Keeper) Tend(ctx context.Context) (Space, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s, l, err := k.look(ctx)
	if err == nil {
		err = k.grow(ctx, &s)
	}
	if err != nil {
		return s, err
	}
	if fails := k.fails(s.Size); fails != l.ErrorIfNoSpace {
		l.ErrorIfNoSpace = fails
		return s, k.reload(ctx, s, l)
	}
	return s, nil
}

func (k *Keeper) grow(ctx context.Context, s *Space) error {
	g := ctl.GrowPool{Name: k.Name}
	if s.Free() <= s.Size/reserve && s.Size < k.Most {
		g.Size = min(2*s.Size, k.Most)
	}
	if m := s.metadata; m.used >= m.size/2 && m.size < mostMetadata {
		g.Metadata = min(2*m.size, mostMetadata)
	}
	if g.Size == 0 && g.Metadata == 0 {
		return nil
	}
	k.log.Info("the pool grows", "pool", k.Name, "size", max(s.Size, g.Size), "metadata", max(s.metadata.size, g.Metadata))
	if err := k.client.GrowPool(ctx, g); err != nil {
		return err
	}
	s.Size, s.metadata.size = max(s.Size, g.Size), max(s.metadata.size, g.Metadata)
	return nil
}

// reload gives the pool another table. If it is cut off, the next Tend does it again.
func (k *Keeper) reload(ctx context.Context, s Space, l *thin.PoolLine) error {
	ref := ctl.Ref{Name: k.Name}
	table := dm.FormatTable([]dm.Spec{dm.NewSpec(0, s.Size/blk.SectorSize, l)})
	_, err := k.client.Load(ctx, ctl.Load{Ref: ref, Table: table})
	if err == nil {
		_, err = k.client.Resume(ctx, ctl.Suspend{Ref: ref})
	}
	return err
}

// Room fails with ENOSPC if the pool is full and cannot grow, so that nothing is begun
// that cannot end.
func (k *Keeper) Room(ctx context.Context) error {
	s, err := k.Tend(ctx)
	switch {
	case err != nil:
		return err
	case s.Free() < min(s.Size/100, 64<<20):
		return fmt.Errorf("the pool %s is full (%d of %d bytes): %w; remove images, containers or volumes that nobody needs any more, or raise the maximum", k.Name, s.Used, s.Size, syscall.ENOSPC)
	case s.metadata.size-s.metadata.used < s.metadata.size/100:
		return fmt.Errorf("the metadata of the pool %s are full, and cannot grow further: %w; remove images, containers or volumes that nobody needs any more", k.Name, syscall.ENOSPC)
	}
	return nil
}

// Watch tends the pool every second, and whenever it says that it is nearly full, until ctx
// ends.
func (k *Keeper) Watch(ctx context.Context) {
	var events sync.WaitGroup
	defer events.Wait()
	events.Go(func() { everySecond(ctx, func() { _ = k.listen(ctx) }) }) // the loop below tells why not
	told := ""
	everySecond(ctx, func() {
		why := ""
		if _, err := k.Tend(ctx); err != nil && !errors.Is(err, syscall.ENXIO) && ctx.Err() == nil {
			why = err.Error()
		}
		if why != "" && why != told {
			k.log.Warn("the pool is not looked after", "pool", k.Name, "reason", why)
		}
		told = why
	})
}

// everySecond runs f, and again a second after it has returned, until ctx ends.
func everySecond(ctx context.Context, f func()) {
	for ctx.Err() == nil {
		f()
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func (k *Keeper) listen(ctx context.Context) error {
	events, err := k.client.Events(ctx)
	if err != nil {
		return err
	}
	for e, err := range events {
		if err == nil && (e.Kind == ctl.EventsLost || e.Kind == ctl.EventTable && e.Name == k.Name) {
			_, err = k.Tend(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
