package blktest_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
)

// mutant is a memory disk with one defect.
type mutant struct {
	*memdev.Device
	submit func(d blk.Device, b *blk.Bio)
}

func (m *mutant) Submit(b *blk.Bio) { m.submit(m.Device, b) }

// mutants maps a defect to the subtest of the suite that must find it.
var mutants = map[string]struct {
	finder string
	submit func(d blk.Device, b *blk.Bio)
}{
	"ignores the position in the buffers": {"vectors", func(d blk.Device, b *blk.Bio) {
		n := b.Sectors
		b.SetBufs(b.Bufs, n)
		d.Submit(b)
	}},
	"writes behind the data of a read": {"vectors", func(d blk.Device, b *blk.Bio) {
		if last := b.Bufs; b.Op == blk.Read && len(last) > 1 {
			p := last[len(last)-1]
			p[len(p)-1] = 0
		}
		d.Submit(b)
	}},
	"leaves the last sector of zeroes": {"zeroes", func(d blk.Device, b *blk.Bio) {
		if b.Op == blk.WriteZeroes {
			b.Sectors--
		}
		d.Submit(b)
	}},
	"discards one sector more": {"discard", func(d blk.Device, b *blk.Bio) {
		if b.Op == blk.Discard {
			b.Sectors++
		}
		d.Submit(b)
	}},
	"loses flushes": {"crash", func(d blk.Device, b *blk.Bio) {
		if b.Op == blk.Flush {
			b.Complete(blk.OK)
			return
		}
		d.Submit(b)
	}},
	"ignores FUA": {"crash", func(d blk.Device, b *blk.Bio) {
		b.Flags &^= blk.FUA
		d.Submit(b)
	}},
	"refuses preflush": {"flags", func(d blk.Device, b *blk.Bio) {
		if b.Flags&blk.Preflush != 0 {
			b.Complete(blk.Invalid)
			return
		}
		d.Submit(b)
	}},
	"ends late after close": {"close", func(d blk.Device, b *blk.Bio) {
		c := &blk.Bio{End: func(c *blk.Bio) { time.AfterFunc(time.Hour, func() { b.Complete(c.Status()) }) }}
		c.CloneFrom(b)
		d.Submit(c)
	}},
	"starts goroutines that stay": {"limits", func(blk.Device, *blk.Bio) {}},
}

const mutantEnv = "BLKTEST_MUTANT"

// TestMutant runs the suite on one defect, in a process of its own that
// TestSuiteFindsDefects starts.
func TestMutant(t *testing.T) {
	name := os.Getenv(mutantEnv)
	if name == "" {
		return
	}
	open := func(d *memdev.Device) blk.Device { return &mutant{d, mutants[name].submit} }
	blktest.Suite{
		Open: func(*testing.T) blk.Device {
			if strings.Contains(name, "goroutines") {
				go func() { select {} }()
			}
			return open(memdev.New(size, memdev.Volatile))
		},
		Crash: func(_ *testing.T, d blk.Device, seed uint64) blk.Device {
			return open(d.(*mutant).CrashClone(seed))
		},
	}.Run(t)
}

func TestSuiteFindsDefects(t *testing.T) {
	for name, m := range mutants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.run=^TestMutant$/^"+m.finder+"$")
			cmd.Env = append(os.Environ(), mutantEnv+"="+name)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL: TestMutant/"+m.finder) {
				t.Errorf("not found by %s: %v\n%s", m.finder, err, out)
			}
		})
	}
}
