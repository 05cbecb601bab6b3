package udmtest_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
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
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Minute, NoGrowSync: true})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// fill commits transactions of a few keys each, says so after each, and waits
// until that has been noted. It runs in a process of its own, as a program under
// test should: bbolt maps its file, and a process that waits for a page of a file
// system which it serves itself may wait for ever.
func fill(path string, noSync bool) error {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Minute, NoGrowSync: true})
	if err != nil {
		return err
	}
	defer db.Close()
	db.NoSync = noSync
	for n := 1; n <= commits; n++ {
		if err := db.Update(func(tx *bbolt.Tx) error { return put(tx, n) }); err != nil {
			return err
		}
		fmt.Println("committed", n)
		if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
			return err // it is not recorded anywhere
		}
	}
	return nil
}

func put(tx *bbolt.Tx, n int) error {
	for k := range 20 {
		if err := tx.Bucket(bucket).Put(key(n, k), make([]byte, 100+n)); err != nil {
			return err
		}
	}
	return nil
}

// TestMain is the program under test when it is told a path, and its checker.
func TestMain(m *testing.M) {
	var err error
	if path := os.Getenv("UDMTEST_FILL"); path != "" {
		err = fill(path, os.Getenv("UDMTEST_NOSYNC") != "")
	} else if path := os.Getenv("UDMTEST_CHECK"); path != "" {
		mark, _ := strconv.Atoi(os.Getenv("UDMTEST_MARK"))
		err = check(path, mark)
	} else {
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run fills d in another process and marks each commit that it reports.
func run(t *testing.T, d *udmtest.Disk, more ...string) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), "UDMTEST_FILL="+d.Path()), more...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	noted, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var n int
		if _, err := fmt.Sscan(strings.TrimPrefix(lines.Text(), "committed "), &n); err != nil {
			t.Fatal(err)
		}
		d.Mark(n)
		fmt.Fprintln(noted)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
}

func key(n, k int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n*1000+k)) }

// sound reports what is wrong with what a power cut left, if anything is.
func sound(path string, d *udmtest.Disk, m udmtest.Moment) error {
	if err := d.Save(path); err != nil {
		return err
	}
	return check(path, m.Mark)
}

// soundApart is sound in a process of its own: bbolt crashes on pages that make
// no sense.
func soundApart(path string, d *udmtest.Disk, m udmtest.Moment) error {
	if err := d.Save(path); err != nil {
		return err
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "UDMTEST_CHECK="+path, "UDMTEST_MARK="+strconv.Itoa(m.Mark))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %.200s", err, out)
	}
	return nil
}

// check opens the database and looks for what had been committed.
func check(path string, mark int) error {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Minute})
	if err != nil {
		return err
	}
	defer db.Close()
	return db.View(func(tx *bbolt.Tx) error {
		var bad error
		for err := range tx.Check() {
			bad = errors.Join(bad, err)
		}
		for n := 1; n <= mark && bad == nil; n++ {
			bad = lost(tx, n)
		}
		return bad
	})
}

func lost(tx *bbolt.Tx, n int) error {
	for k := range 20 {
		if tx.Bucket(bucket).Get(key(n, k)) == nil {
			return fmt.Errorf("key %d of committed transaction %d is lost", k, n)
		}
	}
	return nil
}

func TestBboltSurvivesPowerLoss(t *testing.T) {
	const size = 256 << 10
	path := filepath.Join(t.TempDir(), "after")
	states := udmtest.Crashes(t, udmtest.Plan{Size: size, Start: freshDB(t, size)},
		func(d *udmtest.Disk) { run(t, d) },
		func(d *udmtest.Disk, m udmtest.Moment) error { return sound(path, d, m) })
	t.Logf("bbolt: %d transactions, %d crash states, all sound", commits, states)
	if states < 3*2*commits {
		t.Fatalf("only %d states", states)
	}
}

// The same without fsync, which bbolt's manual warns of: the power cuts show why.
func TestBboltWithoutSyncDoesNot(t *testing.T) {
	const size = 256 << 10
	path := filepath.Join(t.TempDir(), "after")
	broken := 0
	states := udmtest.Crashes(t, udmtest.Plan{Size: size, Start: freshDB(t, size), Seeds: 1},
		func(d *udmtest.Disk) { run(t, d, "UDMTEST_NOSYNC=1") },
		func(d *udmtest.Disk, m udmtest.Moment) error {
			if soundApart(path, d, m) != nil {
				broken++
			}
			return nil
		})
	t.Logf("bbolt without sync: %d of %d crash states are broken", broken, states)
	if broken == 0 {
		t.Fatal("no power cut does any harm")
	}
}
