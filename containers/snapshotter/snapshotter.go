// Package snapshotter is a snapshotter of containerd whose snapshots are thin volumes of
// a udm daemon.
//
// Each snapshot is one volume: that of a snapshot without a parent is a clone of an
// empty file system, or of the image that a label names, any other one a clone of its
// parent's. A clone takes a moment and no space. What containerd knows of a snapshot is a label of its volume, so the daemon
// saves both together and there is no second database that could disagree; the index of
// this package is a copy of the labels, read anew at every start.
//
//	call      in the daemon, each completely or not at all
//	Prepare   a clone with its label
//	View      the same
//	Commit    the label changes; the volume stays what it is
//	Update    the label changes
//	Remove    the volume is removed, or, while somebody has it open, labelled as gone and
//	          removed later
//
// So a kill at any moment, of the snapshotter or of the daemon, leaves no snapshot half
// made. A call whose answer was lost may have happened; containerd then finds the
// snapshot in a Walk, and removes it if it does not know it.
package snapshotter

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/filters"
	"github.com/containerd/errdefs"

	"udm/containers/filesystem"
	"udm/containers/pool"
	"udm/ctl"
	"udm/volume"
)

// Config configures a snapshotter.
type Config struct {
	Pool   pool.Config
	Prefix string          // of its volumes' names
	Files  string          // directory in which the daemon shows volumes as files
	FS     filesystem.Type // of snapshots without a label
	Size   uint64          // bytes of the file system of a snapshot
	Offer  Offer           // of snapshots without a label
	Log    *slog.Logger
}

// Snapshotter implements [snapshots.Snapshotter] and [snapshots.Cleaner].
type Snapshotter struct {
	Config
	client ctl.Service
	pool   *pool.Keeper
	index  *index
	bases  sync.Mutex // held while an empty file system is made

	stop   context.CancelFunc
	wake   chan struct{} // there is something to reap; holds one
	behind sync.WaitGroup
}

var _ interface {
	snapshots.Snapshotter
	snapshots.Cleaner
} = (*Snapshotter)(nil)

// New returns a snapshotter on a daemon, which need not run yet. Close it.
func New(c Config, client ctl.Service) *Snapshotter {
	s := &Snapshotter{Config: c, client: client, pool: pool.New(c.Pool, client, c.Log), index: newIndex(client, c.Prefix+"-"),
		wake: make(chan struct{}, 1)}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.behind.Go(func() { s.pool.Watch(ctx) })
	s.behind.Go(func() { s.reap(ctx) })
	return s
}

// Close ends what runs behind. Snapshots and mounts stay.
func (s *Snapshotter) Close() error {
	s.stop()
	s.behind.Wait()
	return nil
}

// Stat implements [snapshots.Snapshotter].
func (s *Snapshotter) Stat(ctx context.Context, key string) (snapshots.Info, error) {
	r, err := s.index.find(ctx, key)
	if err != nil {
		return snapshots.Info{}, err
	}
	return r.info(), nil
}

// Walk implements [snapshots.Snapshotter].
func (s *Snapshotter) Walk(ctx context.Context, f snapshots.WalkFunc, fs ...string) error {
	filter, err := filters.ParseAll(fs...)
	if err != nil {
		return err
	}
	infos, err := s.index.all(ctx)
	for _, i := range infos {
		if err == nil && filter.Match(filters.AdapterFunc(func(path []string) (string, bool) { return field(i, path) })) {
			err = f(ctx, i)
		}
	}
	return err
}

// Usage implements [snapshots.Snapshotter]: the bytes that a snapshot has beside its
// parent's.
func (s *Snapshotter) Usage(ctx context.Context, key string) (snapshots.Usage, error) {
	r, err := s.index.find(ctx, key)
	if err != nil {
		return snapshots.Usage{}, err
	}
	if r.kind() == snapshots.KindCommitted {
		return snapshots.Usage{Size: r.Bytes}, nil
	}
	own, err := s.own(ctx, r)
	return snapshots.Usage{Size: own}, err
}

func (s *Snapshotter) own(ctx context.Context, r record) (int64, error) {
	o, err := s.client.Object(ctx, ctl.Object{Name: r.volume})
	return int64(o.Own), inWords(err)
}

// Prepare implements [snapshots.Snapshotter].
func (s *Snapshotter) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return s.make(ctx, snapshots.KindActive, key, parent, opts)
}

// View implements [snapshots.Snapshotter].
func (s *Snapshotter) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return s.make(ctx, snapshots.KindView, key, parent, opts)
}

func (s *Snapshotter) make(ctx context.Context, kind snapshots.Kind, key, parent string, opts []snapshots.Opt) ([]mount.Mount, error) {
	ctx = context.WithoutCancel(ctx)
	r, err := s.newRecord(kind, key, parent, opts)
	if err != nil {
		return nil, err
	}
	of := ""
	c, err := s.index.begin(ctx, func() (change, error) {
		if parent != "" {
			p, err := s.index.atRestLocked(parent)
			if err != nil {
				return change{}, err
			}
			if p.kind() != snapshots.KindCommitted {
				return change{}, fmt.Errorf("parent %q is not a committed snapshot: %w", parent, errdefs.ErrInvalidArgument)
			}
			of, r.FS = p.volume, p.FS
		}
		return change{to: r}, s.index.freeLocked(key)
	})
	if err != nil {
		return nil, err
	}
	err = s.clone(ctx, r, of)
	s.index.end(c, err)
	if err != nil {
		return nil, inWords(err)
	}
	return s.mounts(ctx, *r)
}

func (s *Snapshotter) newRecord(kind snapshots.Kind, key, parent string, opts []snapshots.Opt) (*record, error) {
	var i snapshots.Info
	for _, opt := range opts {
		if err := opt(&i); err != nil {
			return nil, err
		}
	}
	fs, err := filesystem.Parse(orElse(i.Labels[fsLabel], string(s.FS)))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	}
	offer, err := ParseOffer(orElse(i.Labels[offerLabel], string(s.Offer)))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	}
	image := ""
	if parent == "" {
		image = i.Labels[imageLabel]
	}
	if image != "" {
		if fs, err = onImage(image); err != nil {
			return nil, fmt.Errorf("%s: %w: %w", imageLabel, err, errdefs.ErrInvalidArgument)
		}
	}
	now := time.Now().UTC()
	return &record{Key: key, Parent: parent, Kind: kind.String(), Created: now, Updated: now, Labels: i.Labels,
		Offer: offer, FS: string(fs), Image: image, volume: s.Prefix + "-" + strings.ToLower(rand.Text())}, nil
}

// onImage is the file system on an image.
func onImage(path string) (filesystem.Type, error) {
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("%q is not an absolute path", path)
	}
	fs, err := filesystem.Of(path)
	if err == nil && fs == "" {
		err = fmt.Errorf("%s has no file system", path)
	}
	return fs, err
}

func orElse(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// clone makes the volume of a snapshot.
func (s *Snapshotter) clone(ctx context.Context, r *record, of string) error {
	if of == "" && r.Image != "" {
		return s.cloneImage(ctx, r)
	}
	if of == "" {
		base, err := s.base(ctx, filesystem.Type(r.FS))
		if err != nil {
			return err
		}
		of = base
	}
	if err := s.pool.Room(ctx); err != nil {
		return err
	}
	return s.client.Snapshot(ctx, volume.SnapshotSpec{Of: of, Names: []string{r.volume}, Labels: r.label()})
}

// cloneImage makes the volume of a snapshot that begins as an image. The image is below it,
// and nothing of it is copied.
func (s *Snapshotter) cloneImage(ctx context.Context, r *record) error {
	if err := s.pool.Ensure(ctx); err != nil {
		return err
	}
	if err := s.pool.Room(ctx); err != nil {
		return err
	}
	return s.client.Clone(ctx, volume.CloneSpec{Base: r.Image, Names: []string{r.volume}, Pool: s.Config.Pool.Name, Labels: r.label()})
}

// Mounts implements [snapshots.Snapshotter].
func (s *Snapshotter) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	r, err := s.index.find(ctx, key)
	if err != nil {
		return nil, err
	}
	if r.kind() == snapshots.KindCommitted {
		return nil, fmt.Errorf("snapshot %q is neither active nor a view: %w", key, errdefs.ErrFailedPrecondition)
	}
	return s.mounts(context.WithoutCancel(ctx), r)
}

// Commit implements [snapshots.Snapshotter].
func (s *Snapshotter) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	ctx = context.WithoutCancel(ctx)
	var i snapshots.Info
	for _, opt := range opts {
		if err := opt(&i); err != nil {
			return err
		}
	}
	c, err := s.index.begin(ctx, func() (change, error) {
		from, err := s.index.atRestLocked(key)
		if err == nil {
			err = s.index.freeLocked(name)
		}
		switch {
		case err != nil:
			return change{}, err
		case from.kind() != snapshots.KindActive:
			return change{}, fmt.Errorf("snapshot %q is not active: %w", key, errdefs.ErrFailedPrecondition)
		}
		to := *from
		to.Key, to.Kind, to.Labels = name, snapshots.KindCommitted.String(), i.Labels
		to.Created = time.Now().UTC()
		to.Updated = to.Created
		return change{from, &to}, nil
	})
	if err != nil {
		return err
	}
	if err = s.withdraw(ctx, *c.from); err == nil {
		c.to.Bytes, err = s.own(ctx, *c.from)
	}
	if err == nil {
		err = s.client.Label(ctx, volume.LabelSpec{Name: c.to.volume, Labels: c.to.label()})
	}
	s.index.end(c, err)
	return inWords(err)
}

// Update implements [snapshots.Snapshotter].
func (s *Snapshotter) Update(ctx context.Context, info snapshots.Info, paths ...string) (snapshots.Info, error) {
	ctx = context.WithoutCancel(ctx)
	c, err := s.index.begin(ctx, func() (change, error) {
		from, err := s.index.atRestLocked(info.Name)
		if err != nil {
			return change{}, err
		}
		to := *from
		to.Labels, err = updated(from.info(), info, paths)
		to.Updated = time.Now().UTC()
		return change{from, &to}, err
	})
	if err != nil {
		return snapshots.Info{}, err
	}
	err = s.client.Label(ctx, volume.LabelSpec{Name: c.to.volume, Labels: c.to.label()})
	s.index.end(c, err)
	if err != nil {
		return snapshots.Info{}, inWords(err)
	}
	return c.to.info(), nil
}

// updated is the labels of a snapshot after an update of some fields; without paths all
// that can change does.
func updated(was, now snapshots.Info, paths []string) (map[string]string, error) {
	labels := was.Labels
	if len(paths) == 0 {
		paths = []string{"labels"}
	}
	for _, path := range paths {
		name, one := strings.CutPrefix(path, "labels.")
		switch {
		case path == "labels":
			labels = now.Labels
		case !one:
			return nil, fmt.Errorf("the field %q of snapshot %q cannot be updated: %w", path, was.Name, errdefs.ErrInvalidArgument)
		case labels == nil:
			labels = map[string]string{name: now.Labels[name]}
		default:
			labels[name] = now.Labels[name]
		}
	}
	maps.DeleteFunc(labels, func(_, value string) bool { return value == "" })
	return labels, nil
}

// Remove implements [snapshots.Snapshotter].
func (s *Snapshotter) Remove(ctx context.Context, key string) error {
	ctx = context.WithoutCancel(ctx)
	c, err := s.index.begin(ctx, func() (change, error) {
		r, err := s.index.atRestLocked(key)
		if err == nil && s.index.children[key] > 0 {
			err = fmt.Errorf("snapshot %q has children, remove them first: %w", key, errdefs.ErrFailedPrecondition)
		}
		return change{from: r}, err
	})
	if err != nil {
		return err
	}
	err = s.removeVolume(ctx, *c.from)
	if errors.Is(err, syscall.EBUSY) {
		err = s.removeLater(ctx, *c.from)
	}
	s.index.end(c, err)
	return inWords(err)
}

// doubtful reports whether a failed command may have happened after all: the daemon has
// not said that it did not. One about a volume that is not there shows that somebody
// else has changed things.
func doubtful(err error) bool {
	var said *ctl.Error
	return !errors.As(err, &said) || slices.ContainsFunc([]error{syscall.EINTR, syscall.ENXIO, syscall.EIO}, func(e error) bool { return errors.Is(err, e) })
}

// inWords is an error in the terms of containerd.
func inWords(err error) error {
	var none *ctl.NotRunning
	var said *ctl.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("%w: %w", err, errdefs.ErrResourceExhausted)
	case errors.As(err, &none), errors.Is(err, syscall.EBUSY), !errors.As(err, &said):
		return fmt.Errorf("%w: %w", err, errdefs.ErrUnavailable)
	}
	return err
}
