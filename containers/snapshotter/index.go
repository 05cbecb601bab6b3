package snapshotter

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"udm/ctl"
	"udm/volume"
)

// index is the snapshots by key, as read from the labels of the volumes. The daemon's
// word is the truth: a change that fails and leaves doubt makes the index stale, and
// the next call reads it anew, once the changes under way have ended.
type index struct {
	client ctl.Service
	prefix string // of the names of the volumes

	mu       sync.Mutex         // a leaf
	changed  *sync.Cond         // of mu: at, stale or loading have changed
	records  map[string]*record // guarded by mu; by key
	children map[string]int     // guarded by mu; of a key, also of those being made
	gone     map[string]*record // guarded by mu; by volume
	stale    bool               // guarded by mu
	loading  bool               // guarded by mu
	at       int                // guarded by mu; how many changes are under way
}

func newIndex(client ctl.Service, prefix string) *index {
	x := &index{client: client, prefix: prefix, stale: true}
	x.changed = sync.NewCond(&x.mu)
	return x
}

// lock locks the index, which is then what the daemon knows.
func (x *index) lock(ctx context.Context) error {
	x.mu.Lock()
	for x.stale {
		if x.loading || x.at > 0 {
			x.changed.Wait()
			continue
		}
		x.loading = true
		x.mu.Unlock()
		objects, err := x.client.Labelled(ctx, ctl.Labelled{Label: recordLabel})
		x.mu.Lock()
		if err == nil {
			err = x.readLocked(objects)
		}
		x.loading, x.stale = false, err != nil
		x.changed.Broadcast()
		if err != nil {
			x.mu.Unlock()
			return inWords(err)
		}
	}
	return nil
}

func (x *index) readLocked(objects []volume.Object) error {
	x.records, x.children, x.gone = make(map[string]*record), make(map[string]int), make(map[string]*record)
	for _, o := range objects {
		if !strings.HasPrefix(o.Name, x.prefix) {
			continue
		}
		r, err := recordOf(o)
		switch {
		case err != nil:
			return fmt.Errorf("the label %s of the volume %s cannot be read: %w; give the volume a name with another beginning, which keeps its data: udm rename %[2]s OTHER", recordLabel, o.Name, err)
		case r == nil:
		case r.Gone:
			x.gone[r.volume] = r
		default:
			x.putLocked(r)
		}
	}
	return nil
}

func (x *index) putLocked(r *record) {
	x.records[r.Key] = r
	if r.Parent != "" {
		x.children[r.Parent]++
	}
}

func (x *index) dropLocked(r *record) {
	delete(x.records, r.Key)
	if r.Parent != "" {
		x.children[r.Parent]--
	}
}

// find returns a snapshot that is there.
func (x *index) find(ctx context.Context, key string) (record, error) {
	if err := x.lock(ctx); err != nil {
		return record{}, err
	}
	defer x.mu.Unlock()
	r, err := x.findLocked(key)
	if err != nil {
		return record{}, err
	}
	return *r, nil
}

func (x *index) findLocked(key string) (*record, error) {
	if r := x.records[key]; r != nil && r.state != making {
		return r, nil
	}
	return nil, fmt.Errorf("snapshot %q does not exist: %w", key, errdefs.ErrNotFound)
}

// atRestLocked is findLocked for a snapshot that is to be changed or stood on.
func (x *index) atRestLocked(key string) (*record, error) {
	r, err := x.findLocked(key)
	if err == nil && r.state != atRest {
		err = fmt.Errorf("snapshot %q is being changed; try again: %w", key, errdefs.ErrUnavailable)
	}
	return r, err
}

// freeLocked refuses a key that is taken.
func (x *index) freeLocked(key string) error {
	if x.records[key] != nil {
		return fmt.Errorf("snapshot %q: %w", key, errdefs.ErrAlreadyExists)
	}
	return nil
}

// all returns the snapshots, ascending by key.
func (x *index) all(ctx context.Context) (infos []snapshots.Info, err error) {
	if err := x.lock(ctx); err != nil {
		return nil, err
	}
	defer x.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(x.records)) {
		if r, err := x.findLocked(key); err == nil {
			infos = append(infos, r.info())
		}
	}
	return infos, nil
}

// change is a change of one snapshot: from what it is to what it will be. The daemon
// is asked in between, with nothing locked.
type change struct {
	from *record // nil: it is made
	to   *record // nil: it is removed
}

// begin plans a change under the lock, and keeps others from changing the same.
func (x *index) begin(ctx context.Context, plan func() (change, error)) (change, error) {
	if err := x.lock(ctx); err != nil {
		return change{}, err
	}
	defer x.mu.Unlock()
	c, err := plan()
	if err != nil {
		return c, err
	}
	if c.from != nil {
		c.from.state = changing
	}
	if c.to != nil && (c.from == nil || c.from.Key != c.to.Key) {
		c.to.state = making
		x.putLocked(c.to)
	}
	x.at++
	return c, nil
}

// end makes the change, or not if err.
func (x *index) end(c change, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	lost, kept := c.from, c.to
	if err != nil {
		lost, kept = c.to, c.from
		x.stale = x.stale || doubtful(err)
	}
	if lost != nil && x.records[lost.Key] == lost {
		x.dropLocked(lost)
	}
	if kept != nil {
		kept.state = atRest
		if x.records[kept.Key] == nil {
			x.putLocked(kept)
		}
	}
	x.at--
	x.changed.Broadcast()
}

// leave records a volume that is to be removed once nobody has it open.
func (x *index) leave(r *record) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.gone[r.volume] = r
}

func (x *index) left(ctx context.Context) ([]*record, error) {
	if err := x.lock(ctx); err != nil {
		return nil, err
	}
	defer x.mu.Unlock()
	return slices.Collect(maps.Values(x.gone)), nil
}

func (x *index) forget(r *record) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.gone, r.volume)
}
