// Package chunkcache keeps pieces of remote disks in a folder of bounded size. Several
// devices and several processes may share one.
//
// # Layout
//
// A piece is a file, named by the SHA-256 of its key in hexadecimal digits, in a folder
// named by the first two: the SHA-256 of key and content, and the content. It is written
// under another name and renamed, and checked when it is read: after a crash, or a kill at any
// moment, a piece is there as a whole or not at all. Nothing is flushed, as nothing is lost
// with a piece.
//
// # Size
//
// When more than the limit is there, pieces that were not used for longest are removed,
// down to seven eighths of it. The time of a file's last change is that of its last use.
// Each process counts what it adds, and looks at the folder when that was a sixteenth of
// the limit, so that the folder may be larger than the limit by a sixteenth for each
// process that shares it.
//
// Errors of the cache are no errors of its users: a piece that cannot be kept is read again.
// Lock order: mu is a leaf.
package chunkcache

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Cache is a folder with pieces.
type Cache struct {
	dir   string
	limit int64

	mu       sync.Mutex
	added    int64 // guarded by mu; bytes since the folder was looked at
	trimming bool  // guarded by mu
}

// DefaultLimit is the size of a cache for which none is given.
const DefaultLimit = 4 << 30

// Open opens the cache in a folder, which it makes if there is none. limit is in bytes;
// 0: DefaultLimit.
func Open(dir string, limit int64) (*Cache, error) {
	if limit <= 0 {
		limit = DefaultLimit
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	c := &Cache{dir: dir, limit: limit}
	c.trim()
	return c, nil
}

func (c *Cache) path(key string) string {
	sum := sha256.Sum256([]byte(key))
	name := hex.EncodeToString(sum[:])
	return filepath.Join(c.dir, name[:2], name)
}

func checksum(key string, p []byte) [sha256.Size]byte {
	h := sha256.New()
	h.Write([]byte(key + "\x00"))
	h.Write(p)
	return [sha256.Size]byte(h.Sum(nil))
}

// Get returns a piece, if it is there.
func (c *Cache) Get(key string) ([]byte, bool) {
	path := c.path(key)
	p, err := os.ReadFile(path)
	if err != nil {
		return nil, false
	}
	if len(p) < sha256.Size || checksum(key, p[sha256.Size:]) != [sha256.Size]byte(p[:sha256.Size]) {
		_ = os.Remove(path)
		return nil, false
	}
	now := time.Now()
	_ = os.Chtimes(path, now, now)
	return p[sha256.Size:], true
}

// Put keeps a piece, if that can be done.
func (c *Cache) Put(key string, p []byte) {
	path := c.path(key)
	if os.MkdirAll(filepath.Dir(path), 0o700) != nil {
		return
	}
	sum := checksum(key, p)
	from := filepath.Join(c.dir, newPrefix+rand.Text())
	err := os.WriteFile(from, append(sum[:], p...), 0o600)
	if err == nil {
		err = os.Rename(from, path)
	}
	if err != nil {
		_ = os.Remove(from)
		return
	}
	c.count(int64(len(p) + sha256.Size))
}

// newPrefix is that of files that are being written.
const newPrefix = "new-"

// count counts what was added, and looks at the folder from time to time.
func (c *Cache) count(n int64) {
	c.mu.Lock()
	c.added += n
	look := c.added > c.limit/16 && !c.trimming
	if look {
		c.added, c.trimming = 0, true
	}
	c.mu.Unlock()
	if !look {
		return
	}
	c.trim()
	c.mu.Lock()
	c.trimming = false
	c.mu.Unlock()
}

// piece is a file of the cache.
type piece struct {
	path string
	size int64
	used time.Time
}

// trim removes what was not used for longest, if there is more than the limit, and files that
// were left half-written an hour ago.
func (c *Cache) trim() {
	var all []piece
	sum := int64(0)
	_ = filepath.WalkDir(c.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return nil // removed meanwhile
		}
		if strings.HasPrefix(e.Name(), newPrefix) {
			if time.Since(info.ModTime()) > time.Hour {
				_ = os.Remove(path)
			}
			return nil
		}
		if len(e.Name()) == 2*sha256.Size { // nothing else is touched
			all = append(all, piece{path, info.Size(), info.ModTime()})
			sum += info.Size()
		}
		return nil
	})
	if sum <= c.limit {
		return
	}
	slices.SortFunc(all, func(a, b piece) int { return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.path, b.path)) })
	for _, p := range all {
		if sum <= c.limit/8*7 {
			return
		}
		if os.Remove(p.path) == nil {
			sum -= p.size
		}
	}
}
