package multipath_test

import (
	"fmt"
	"testing"
	"time"

	"udm/blk"
	"udm/dm"
	"udm/targets/internal/targettest"
)

// bench is a device with paths to a, b and c, of which a test holds what they have.
type bench struct {
	*targettest.Rig
	d *dm.Device
}

var disks = []string{"a", "b", "c"}

// newBench makes a device with one group; args are the words of each path.
func newBench(t *testing.T, selector string, args ...string) *bench {
	r := targettest.New(t, types)
	n := 0
	if args[0] != "" {
		n = len(dm.SplitWords(args[0]))
	}
	text := fmt.Sprintf("0 64 multipath 0 0 1 1 %s %d %d", selector, len(args), n)
	for i, a := range args {
		text += " " + disks[i] + " " + a
		r.Gate(disks[i]).Shut()
	}
	return &bench{r, r.Device("x", text)}
}

// takes submits reads and checks which paths they take.
func (b *bench) takes(sectors uint64, want string) {
	b.Helper()
	got := ""
	for range want {
		var before [3]int
		for i, name := range disks {
			before[i] = len(b.Gate(name).Held())
		}
		b.Submit(b.d, blk.Read, 0, 0, sectors, 0)
		for i, name := range disks {
			if len(b.Gate(name).Held()) > before[i] {
				got += name
			}
		}
	}
	if got != want {
		b.Errorf("reads take %s, want %s", got, want)
	}
}

// ends lets the oldest n reads of a path end.
func (b *bench) ends(name string, n int) {
	for _, x := range b.Gate(name).Held()[:n] {
		b.Gate(name).Release(x.Index)
	}
	b.Sim.Run()
}

func TestRoundRobin(t *testing.T) {
	b := newBench(t, "round-robin 0", "", "", "")
	b.takes(8, "abcab")
	b.Message(b.d, "fail_path c", "", 0)
	b.takes(8, "abab")
	b.Message(b.d, "reinstate_path c", "", 0)
	b.takes(8, "cabc")
}

func TestQueueLength(t *testing.T) {
	b := newBench(t, "queue-length 0", "1", "1", "1")
	b.takes(8, "abcabc")
	b.ends("b", 2)
	b.takes(8, "bb")
	b.takes(8, "acb") // the order of their last turns decides
	b.ends("c", 3)
	b.takes(8, "cccabc")
	b.Lines(b.d, dm.Info, "0 64 multipath 2 0 0 0 1 1 A 0 3 1 7:0 A 0 4 7:1 A 0 4 7:2 A 0 4 ")
}

func TestServiceTime(t *testing.T) {
	b := newBench(t, "service-time 0", "1 1", "1 4", "1 0")
	b.takes(8, "bbbbabbbba")
	b.Lines(b.d, dm.Info, "0 64 multipath 2 0 0 0 1 1 A 0 3 2 7:0 A 0 8192 1 7:1 A 0 32768 4 7:2 A 0 0 0 ")
	b.ends("a", 2)
	b.takes(16, "a")
	b.Message(b.d, "fail_path a", "", 0)
	b.takes(8, "bb")
	b.Message(b.d, "fail_path b", "", 0)
	b.takes(8, "cc")
	b.Message(b.d, "reinstate_path a", "", 0)
	b.takes(8, "a")
}

func TestServiceTimeOfLikePaths(t *testing.T) {
	b := newBench(t, "service-time 0", "", "", "")
	b.takes(8, "abc")
	b.takes(32, "a")
	b.takes(8, "bcbcbcbca")
}

// TestHistorical: the path that takes longer gets less, until what is known of the other is
// old and it does not answer.
func TestHistorical(t *testing.T) {
	b := newBench(t, "historical-service-time 1 0", "0", "0")
	b.takes(8, "ab")
	b.Sim.Advance(time.Millisecond)
	b.ends("a", 1)
	b.Sim.Advance(9 * time.Millisecond)
	b.ends("b", 1)
	b.Lines(b.d, dm.Info, "0 64 multipath 2 0 0 0 1 1 A 2 0 0 2 3 7:0 A 0 1024000000 0 3000000 7:1 A 0 10240000000 0 30000000 ")
	b.takes(8, "a")
	b.takes(8, "b") // a is late already
	b.ends("a", 1)
	b.takes(8, "aaaaa")
}

// A threshold makes times alike.
func TestHistoricalThreshold(t *testing.T) {
	b := newBench(t, "historical-service-time 2 0 3", "0", "0")
	b.takes(8, "ab")
	b.Sim.Advance(10 * time.Millisecond)
	b.ends("a", 1)
	b.Sim.Advance(10 * time.Millisecond)
	b.ends("b", 1)
	b.takes(8, "ab")
	b.ends("a", 1)
	b.ends("b", 1)
	b.takes(8, "abab")
}

// What was long ago counts less, the more so the longer it took.
func TestHistoricalWeights(t *testing.T) {
	b := newBench(t, "historical-service-time 1 512", "0")
	for _, x := range []struct{ took, average int }{{10, 5000000}, {10, 7500000}, {40, 35937500}, {2000, 2000000000}} {
		b.takes(8, "a")
		b.Sim.Advance(time.Duration(x.took) * time.Millisecond)
		b.ends("a", 1)
		s := b.status()
		if got := int(s.Groups[0].Paths[0].Load[0] >> 10); got < x.average*99/100 || got > x.average*101/100 {
			t.Errorf("after %d ms the average is %d ns, want %d", x.took, got, x.average)
		}
	}
}
