package udmtest_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"udm/udmtest"
)

// A real database under power loss: bbolt commits transactions on a udmtest disk
// that it sees as a file; the power is cut after each of its writes and flushes,
// and every disk that could be left is opened, checked by bbolt itself, and must
// hold every transaction that had been committed.

var bucket = []byte("numbers")

const commits = 12

// freshDB is the file of an empty database, grown to size: the disk cannot grow.
func freshDB(t *testing.T, size int64) string {
	path := filepath.Join(t.TempDir(), "fresh")
	db := openDB(t, path)
	if err := db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket(bucket); return err }); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

func openDB(t *testing.T, path string) *bbolt.DB {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second, NoGrowSync: true})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// fill commits transactions of a few keys each, and marks each commit.
func fill(t *testing.T, d *udmtest.Disk, noSync bool) {
	db := openDB(t, d.Path())
	defer db.Close()
	db.NoSync = noSync
	for n := 1; n <= commits; n++ {
		err := db.Update(func(tx *bbolt.Tx) error {
			for k := range 20 {
				if err := tx.Bucket(bucket).Put(key(n, k), make([]byte, 100+n)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		d.Mark(n)
	}
}

func key(n, k int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n*1000+k)) }

// sound opens what a power cut left.
func sound(path string, d *udmtest.Disk, m udmtest.Moment) (err error) {
	if err := d.Save(path); err != nil {
		return err
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return err
	}
	defer db.Close()
	return db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			return err
		}
		for n := 1; n <= m.Mark; n++ {
			for k := range 20 {
				if tx.Bucket(bucket).Get(key(n, k)) == nil {
					return fmt.Errorf("key %d of committed transaction %d is lost", k, n)
				}
			}
		}
		return nil
	})
}

func TestBboltSurvivesPowerLoss(t *testing.T) {
	const size = 256 << 10
	path := filepath.Join(t.TempDir(), "after")
	states := udmtest.Crashes(t, udmtest.Plan{Size: size, Start: freshDB(t, size), Seeds: 5},
		func(d *udmtest.Disk) { fill(t, d, false) },
		func(d *udmtest.Disk, m udmtest.Moment) error { return sound(path, d, m) })
	t.Logf("bbolt: %d transactions, %d crash states, all sound", commits, states)
	if states < 5*2*commits {
		t.Fatalf("only %d states", states)
	}
}

// The same without fsync, which bbolt's manual warns of: the power cuts show why.
func TestBboltWithoutSyncDoesNot(t *testing.T) {
	const size = 256 << 10
	path := filepath.Join(t.TempDir(), "after")
	broken := 0
	states := udmtest.Crashes(t, udmtest.Plan{Size: size, Start: freshDB(t, size), Seeds: 5},
		func(d *udmtest.Disk) { fill(t, d, true) },
		func(d *udmtest.Disk, m udmtest.Moment) error {
			if sound(path, d, m) != nil {
				broken++
			}
			return nil
		})
	t.Logf("bbolt without sync: %d of %d crash states are broken", broken, states)
	if broken == 0 {
		t.Fatal("no power cut does any harm")
	}
}
