package script

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"udm/ctl"
	"udm/test/kernel/nbdclient"
)

var kills = flag.Int("kills", 3, "how often the daemon is killed under load")

// blockSize and blocks are what a writer writes: bytes, and how many.
const blockSize, blocks = 4096, 256

// writer writes versions to the blocks of a device and remembers what must be
// there. A block is words of 64 bits: its number and a version, in turn.
type writer struct {
	export                    string
	submitted, acked, flushed [blocks]uint32
	rng                       *rand.Rand
	written                   *atomic.Int64 // by all writers
}

// write goes on until the connection is lost.
func (w *writer) write(socket string) error {
	c, err := nbdclient.Dial(socket, w.export)
	if err != nil {
		return err
	}
	defer c.Close()
	buf := make([]byte, blockSize)
	for {
		b := w.rng.IntN(blocks)
		w.submitted[b]++
		fillBlock(buf, b, w.submitted[b])
		if c.Write(buf, int64(b)*blockSize) != nil {
			return nil
		}
		w.acked[b] = w.submitted[b]
		w.written.Add(1)
		if w.rng.IntN(20) == 0 {
			if c.Flush() != nil {
				return nil
			}
			w.flushed = w.acked
		}
	}
}

func fillBlock(buf []byte, b int, version uint32) {
	for i := 0; i < len(buf); i += 8 {
		binary.LittleEndian.PutUint32(buf[i:], uint32(b)+1)
		binary.LittleEndian.PutUint32(buf[i+4:], version)
	}
}

// verify reads every block: no word of it may be older than what was flushed,
// newer than what was submitted, or another block's.
func (w *writer) verify(socket string) error {
	c, err := nbdclient.Dial(socket, w.export)
	if err != nil {
		return err
	}
	defer c.Close()
	buf := make([]byte, blockSize)
	bad := 0
	for b := range blocks {
		if err := c.Read(buf, int64(b)*blockSize); err != nil {
			return fmt.Errorf("%s: block %d: %w", w.export, b, err)
		}
		if werr := w.verifyBlock(b, buf); werr != nil {
			bad++
			err = cmp.Or(err, werr)
		}
		w.acked[b] = binary.LittleEndian.Uint32(buf[4:])
	}
	if err != nil {
		return fmt.Errorf("%d bad blocks of %d, the first: %w", bad, blocks, err)
	}
	return nil
}

func (w *writer) verifyBlock(b int, buf []byte) error {
	for i := 0; i < len(buf); i += 8 {
		no, version := binary.LittleEndian.Uint32(buf[i:]), binary.LittleEndian.Uint32(buf[i+4:])
		if no != uint32(b)+1 && (no != 0 || version != 0) || version < w.flushed[b] || version > w.submitted[b] {
			return fmt.Errorf("%s: block %d has block %d version %d at byte %d; flushed %d, submitted %d",
				w.export, b, int(no)-1, version, i, w.flushed[b], w.submitted[b])
		}
	}
	return nil
}

// churn makes and removes devices and remembers which are to be there.
type churn struct {
	present map[string]bool // acknowledged
	unsure  string          // a name whose command had no answer
	next    int
	rng     *rand.Rand
}

// run goes on until the daemon is gone.
func (c *churn) run(root string) error {
	client := ctl.NewClient(root)
	defer client.Close()
	ctx := context.Background()
	for {
		name := fmt.Sprintf("churn-%d", c.next)
		for n := range c.present {
			if len(c.present) > 5 || c.rng.IntN(3) == 0 {
				name = n
			}
			break
		}
		c.unsure = name
		var err error
		if c.present[name] {
			err = client.Remove(ctx, ctl.Remove{Ref: ctl.Ref{Name: name}})
		} else {
			c.next++
			_, err = client.Create(ctx, ctl.Create{Name: name, Table: "0 8 zero\n8 8 error"})
		}
		var refused *ctl.Error
		switch {
		case errors.As(err, &refused):
			return err
		case err != nil:
			return nil
		}
		if c.present[name] {
			delete(c.present, name)
		} else {
			c.present[name] = true
		}
		c.unsure = ""
	}
}

// verify compares what is there with what is to be.
func (c *churn) verify(ds []ctl.Device) error {
	there := make(map[string]bool)
	for _, d := range ds {
		if len(d.Name) > 5 && d.Name[:5] == "churn" {
			there[d.Name] = true
			if d.Targets != 2 {
				return fmt.Errorf("%s has %d targets", d.Name, d.Targets)
			}
		}
	}
	if c.unsure != "" {
		if there[c.unsure] {
			c.present[c.unsure] = true
		} else {
			delete(c.present, c.unsure)
		}
	}
	for name := range c.present {
		if !there[name] {
			return fmt.Errorf("%s was made and is gone", name)
		}
		delete(there, name)
	}
	for name := range there {
		return fmt.Errorf("%s was removed and is back", name)
	}
	return nil
}

// shortDir is a directory whose path leaves room for a socket's name.
func shortDir(t testing.TB) string {
	dir, err := os.MkdirTemp("", "udm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// TestKill kills the daemon under write load again and again: every write that
// was acknowledged and flushed is there afterwards, and every table is back.
func TestKill(t *testing.T) {
	dir := shortDir(t)
	root := filepath.Join(dir, "r")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var written atomic.Int64
	var writers []*writer
	for i, export := range []string{"striped", "clone", "volume", "snapshot", "disk"} {
		writers = append(writers, &writer{export: export, rng: rand.New(rand.NewPCG(seed, uint64(i))), written: &written})
	}
	c := &churn{present: make(map[string]bool), rng: rand.New(rand.NewPCG(seed, 99))}
	d := startFor(t, root)
	makeStacks(t, dir, root)
	rng := rand.New(rand.NewPCG(seed, 100))
	for i := range *kills {
		if i > 0 {
			d = startFor(t, root)
		}
		verifyAll(t, root, writers, c)
		if t.Failed() {
			t.Fatalf("after kill %d", i)
		}
		load(t, root, d, writers, c, 200+rng.Int64N(2000), &written)
	}
	d = startFor(t, root)
	verifyAll(t, root, writers, c)
	if err := d.stop(); err != nil {
		t.Error(err)
	}
	t.Logf("%d writes, %d devices made, %d kills", written.Load(), c.next, *kills)
}

func makeStacks(t *testing.T, dir, root string) {
	for _, f := range []string{"a", "b", "c", "image"} {
		if err := os.WriteFile(filepath.Join(dir, f), make([]byte, 2<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	at := func(f string) string { return filepath.Join(dir, f) }
	for _, args := range [][]string{
		{"create", "half-a", "--table", "0 2048 linear " + at("a") + " 0"},
		{"create", "half-b", "--table", "0 2048 linear " + at("b") + " 0"},
		{"create", "striped", "--table", "0 2048 striped 2 128 /dev/mapper/half-a 0 /dev/mapper/half-b 0"},
		{"clone", at("image"), "clone"},
		{"pool", "create", "pool", "--size", "16M"},
		{"volume", "create", "pool", "volume", "--size", "1M"},
		{"create", "disk", "--table", "0 2048 linear " + at("c") + " 0"},
		{"snapshot", "disk", "snapshot"},
	} {
		run(t, root, args...)
	}
}

func run(t testing.TB, root string, args ...string) string {
	t.Helper()
	out, err := command(root, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("udm %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// load writes and changes until so many writes are done, and kills the daemon
// in the middle of it.
func load(t *testing.T, root string, d *daemon, writers []*writer, c *churn, writes int64, written *atomic.Int64) {
	goal := written.Load() + writes
	var group sync.WaitGroup
	socket := filepath.Join(root, ctl.NBDSocket)
	for _, w := range writers {
		group.Go(func() {
			if err := w.write(socket); err != nil {
				t.Error(err)
			}
		})
	}
	group.Go(func() {
		if err := c.run(root); err != nil {
			t.Error(err)
		}
	})
	probe := ctl.NewClient(root)
	defer probe.Close()
	for written.Load() < goal && !t.Failed() {
		// A command takes a while, and does no harm.
		if _, err := probe.List(context.Background(), ctl.Query{With: []ctl.With{ctl.WithStatus}, Noflush: true}); err != nil {
			t.Error(err)
		}
	}
	if err := d.kill(); err != nil {
		t.Error(err)
	}
	group.Wait()
}

func verifyAll(t *testing.T, root string, writers []*writer, c *churn) {
	client := ctl.NewClient(root)
	defer client.Close()
	ds, err := client.List(context.Background(), ctl.Query{With: []ctl.With{ctl.WithStatus}})
	if err != nil {
		t.Error(err)
		return
	}
	for _, d := range ds {
		if d.Waiting != "" || d.Suspended || !d.Live {
			t.Errorf("%s did not come back: %+v", d.Name, d)
		}
	}
	if err := c.verify(ds); err != nil {
		t.Error(err)
	}
	for _, w := range writers {
		if err := w.verify(filepath.Join(root, ctl.NBDSocket)); err != nil {
			t.Error(err)
		}
	}
}
