package chunkcache_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"udm/blk/chunkcache"
)

func size(t *testing.T, dir string) (n int64, files []string) {
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		i, err := e.Info()
		if err == nil {
			n += i.Size()
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n, files
}

// TestShared fills a cache from several devices at once. It stays within its limit, and
// returns what was put there or nothing.
func TestShared(t *testing.T) {
	dir := t.TempDir()
	const limit, each = 1 << 20, 1 << 15
	var wg sync.WaitGroup
	for w := range 4 {
		c, err := chunkcache.Open(dir, limit)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for i := range 100 {
				key := fmt.Sprint((i * (w + 1)) % 130)
				want := bytes.Repeat([]byte(key), each)[:each]
				if p, ok := c.Get(key); ok && !bytes.Equal(p, want) {
					t.Errorf("%s is another piece", key)
				} else if !ok {
					c.Put(key, want)
				}
			}
		})
	}
	wg.Wait()
	if n, _ := size(t, dir); n > limit+4*(limit/16+each+32) || n < limit/2 {
		t.Errorf("the cache has %d bytes", n)
	}
}

// TestDamage: a piece that was damaged, or belongs to another key, is not returned.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	c, err := chunkcache.Open(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	c.Put("a", []byte("content"))
	_, files := size(t, dir)
	p, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for i := range p {
		q := bytes.Clone(p)
		q[i] ^= 1
		if err := os.WriteFile(files[0], q[:len(q)-i%2], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, ok := c.Get("a"); ok {
			t.Fatalf("damage at byte %d was not seen", i)
		}
	}
	c.Put("b", []byte("content"))
	_, files = size(t, dir)
	c.Put("a", []byte("content"))
	_, both := size(t, dir)
	for _, f := range both {
		if f != files[0] {
			if err := os.Rename(files[0], f); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, ok := c.Get("a"); ok {
		t.Error("a piece of another key was returned")
	}
}

// TestHalfWritten: what a killed process left is removed, and nothing of others.
func TestHalfWritten(t *testing.T) {
	dir := t.TempDir()
	for name, age := range map[string]time.Duration{"new-old": 2 * time.Hour, "new-young": 0, "notes": 100 * time.Hour} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-age)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := chunkcache.Open(dir, 1); err != nil {
		t.Fatal(err)
	}
	if _, files := size(t, dir); len(files) != 2 {
		t.Errorf("left: %v", files)
	}
}
