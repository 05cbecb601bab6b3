// Package pool keeps the pool that containers' volumes live in: it makes the pool when
// it is first needed and grows it before it is full.
//
// The pool's files are sparse: a pool takes space on the host as its volumes are
// written, whatever its size is. The size is a limit, which [Keeper] raises in steps
// up to a maximum. A write that finds the pool full waits while it can grow. At the
// maximum it fails with ENOSPC at once, unless [Config.WaitWhenFull]; writes to blocks
// that have space go on. Removing volumes, or discarding, makes space again.
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

// Ensure makes the pool unless it is there.
func (k *Keeper) Ensure(ctx context.Context) error {
	o, err := k.client.Object(ctx, ctl.Object{Name: k.Name, Settled: true})
	switch {
	case err == nil && o.Kind != volume.Pool:
		return fmt.Errorf("%s is a %s, not a pool; name another pool, or rename it: udm rename", k.Name, o.Kind)
	case !errors.Is(err, syscall.ENXIO):
		return err
	}
	err = k.client.CreatePool(ctx, volume.PoolSpec{Name: k.Name, Dir: k.Dir, Size: min(k.First, k.Most), FailWhenFull: k.fails(k.First)})
	if errors.Is(err, syscall.EEXIST) || errors.Is(err, syscall.EBUSY) {
		return nil // somebody else was faster
	}
	return err
}

// fails reports whether writes to a full pool of this size should fail at once.
func (k *Keeper) fails(size uint64) bool { return size >= k.Most && !k.WaitWhenFull }

// Space is how much data a pool holds and may hold, in bytes.
type Space struct{ Used, Size uint64 }

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
	return Space{st.UsedData * block, st.TotalData * block}, l, nil
}

// reserve is the part of a pool that is kept free: it grows when less is.
const reserve = 5

// Tend grows the pool if it is nearly full, twofold, up to the maximum.
func (k *Keeper) Tend(ctx context.Context) (Space, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s, l, err := k.look(ctx)
	if err != nil {
		return s, err
	}
	if s.Free() <= s.Size/reserve && s.Size < k.Most {
		to := min(2*s.Size, k.Most)
		k.log.Info("the pool grows", "pool", k.Name, "from", s.Size, "to", to)
		if err := k.client.GrowPool(ctx, ctl.GrowPool{Name: k.Name, Size: to}); err != nil {
			return s, err
		}
		s.Size = to
	}
	if fails := k.fails(s.Size); fails != l.ErrorIfNoSpace {
		l.ErrorIfNoSpace = fails
		return s, k.reload(ctx, s, l)
	}
	return s, nil
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
	if err == nil && s.Free() < min(s.Size/100, 64<<20) {
		err = fmt.Errorf("the pool %s is full (%d of %d bytes): %w; remove images or containers, or raise the maximum", k.Name, s.Used, s.Size, syscall.ENOSPC)
	}
	return err
}

// Watch tends the pool whenever it says that it is nearly full, until ctx ends.
func (k *Keeper) Watch(ctx context.Context) {
	for ctx.Err() == nil {
		if err := k.watch(ctx); err != nil && ctx.Err() == nil {
			k.log.Warn("the pool is not watched for a moment", "pool", k.Name, "reason", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func (k *Keeper) watch(ctx context.Context) error {
	events, err := k.client.Events(ctx)
	if err == nil {
		_, err = k.Tend(ctx)
	}
	if errors.Is(err, syscall.ENXIO) {
		err = nil // not made yet
	}
	if err != nil {
		return err
	}
	for e, err := range events {
		if err != nil {
			return err
		}
		if e.Kind == ctl.EventsLost || e.Kind == ctl.EventTable && e.Name == k.Name {
			if _, err := k.Tend(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}
