package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"
)

// lease is the object that a backup has as long as it runs: its packs are not referred to
// yet, and its bases are.
type lease struct {
	ID      string    `json:"id"`
	Name    string    `json:"name,omitempty"` // only if nothing is encrypted
	Bases   []string  `json:"bases,omitempty"`
	Host    string    `json:"host"`
	PID     int       `json:"pid"`
	Renewed time.Time `json:"renewed"`
}

// A lease is renewed this often, and its backup is taken for dead when it was not for
// longer. Nothing is lost if that is wrong: the backup fails at its end.
const (
	renewal  = time.Minute
	lifetime = time.Hour
)

// write writes a lease with the present time.
func (a *Archive) writeLease(ctx context.Context, l *lease, put func(context.Context, string, []byte) error) error {
	l.Host, _ = os.Hostname()
	l.PID, l.Renewed = os.Getpid(), a.now().UTC()
	p, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return put(ctx, writers+l.ID, p)
}

// leases are those of the backups that run, or have died.
func (a *Archive) leases(ctx context.Context) (list []lease, err error) {
	err = a.store.List(ctx, writers, func(key string, _ int64) error {
		p, err := a.store.Get(ctx, key, 0, -1)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		var l lease
		if err == nil {
			err = json.Unmarshal(p, &l)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		l.ID = strings.TrimPrefix(key, writers)
		list = append(list, l)
		return nil
	})
	return list, err
}

// end gives up the backup of a lease for ever, and reports whether that was possible: else
// it had made its snapshot.
func (a *Archive) end(ctx context.Context, l lease) (ended bool, err error) {
	err = a.store.PutNew(ctx, snapshots+l.ID, []byte(goneMark))
	if errors.Is(err, fs.ErrExist) {
		_, err = a.index(ctx, l.ID)
		ended = errors.Is(err, errGone)
		if ended {
			err = nil
		}
		return ended, err
	}
	return err == nil, err
}
