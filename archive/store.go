package archive

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"time"
)

// Store keeps objects by their keys, which are words of [a-z0-9-] with slashes between.
// A method that has returned nil is durable, and later calls of anybody see it: List too.
// One that failed may have happened nevertheless, or may still happen.
type Store interface {
	// PutNew makes an object, unless there is one of that key: fs.ErrExist.
	PutNew(ctx context.Context, key string, data []byte) error
	// Put makes or replaces an object, at once.
	Put(ctx context.Context, key string, data []byte) error
	// Get reads n bytes from offset on; all the rest if n is negative. fs.ErrNotExist: there
	// is no such object.
	Get(ctx context.Context, key string, offset, n int64) ([]byte, error)
	// List calls fn for each object whose key begins with a prefix, in any order.
	List(ctx context.Context, prefix string, fn func(key string, size int64) error) error
	// Delete removes an object. It is no error if there is none.
	Delete(ctx context.Context, key string) error
}

// attempts is how often a request is made; the time between two doubles from firstPause on.
const attempts = 5

const firstPause = 100 * time.Millisecond

// Retry returns a store that repeats what fails. pause waits, for tests; nil: really.
func Retry(s Store, pause func(context.Context, time.Duration) error) Store {
	if pause == nil {
		pause = sleep
	}
	return &retry{s, pause}
}

type retry struct {
	s     Store
	pause func(context.Context, time.Duration) error
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// do calls f until it succeeds, or says that trying again is of no use.
func (r *retry) do(ctx context.Context, f func() error) (err error) {
	wait := firstPause
	for i := range attempts {
		if i > 0 {
			if r.pause(ctx, wait) != nil {
				return err
			}
			wait *= 2
		}
		err = f()
		if err == nil || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// PutNew finds out whether an object that is there already is from a request whose answer
// was lost, here or on the way: all that is put new is random, or the mark of an end.
func (r *retry) PutNew(ctx context.Context, key string, data []byte) error {
	return r.do(ctx, func() error {
		err := r.s.PutNew(ctx, key, data)
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		got, gerr := r.s.Get(ctx, key, 0, -1)
		switch {
		case gerr != nil && !errors.Is(gerr, fs.ErrNotExist):
			return errors.New(gerr.Error()) // ask again
		case gerr == nil && bytes.Equal(got, data):
			return nil
		}
		return err
	})
}

func (r *retry) Put(ctx context.Context, key string, data []byte) error {
	return r.do(ctx, func() error { return r.s.Put(ctx, key, data) })
}

func (r *retry) Get(ctx context.Context, key string, offset, n int64) (p []byte, err error) {
	err = r.do(ctx, func() error {
		p, err = r.s.Get(ctx, key, offset, n)
		return err
	})
	return p, err
}

// List collects the keys first, as a list that is cut off is made again.
func (r *retry) List(ctx context.Context, prefix string, fn func(string, int64) error) error {
	type object struct {
		key  string
		size int64
	}
	var all []object
	err := r.do(ctx, func() error {
		all = all[:0]
		return r.s.List(ctx, prefix, func(key string, size int64) error {
			all = append(all, object{key, size})
			return nil
		})
	})
	for i := 0; i < len(all) && err == nil; i++ {
		err = fn(all[i].key, all[i].size)
	}
	return err
}

func (r *retry) Delete(ctx context.Context, key string) error {
	return r.do(ctx, func() error { return r.s.Delete(ctx, key) })
}
