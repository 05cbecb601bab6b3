//go:build unix

package kernel

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/env"
	"udm/test/kernel/conform"
)

// cutKinds are the random scripts that are cut; see conform.Kinds.
var cutKinds = []string{"snapshot", "thin", "parallel"}

var suspends = regexp.MustCompile(`dmsetup suspend (\w+)\n`)

// cut is a random script in which udm's disks lose power, and what comes after it.
type cut struct {
	name    string
	text    string
	rng     *rand.Rand
	history *history
	disks   map[string]*memdev.Device // as the power cut left them
}

// newCut runs the script twice: to its end, to see how long it is, and to a random place.
func newCut(t *testing.T, kind string, seed uint64) *cut {
	t.Helper()
	c := &cut{name: fmt.Sprintf("%s-%03d", kind, seed), rng: rand.New(rand.NewPCG(seed, 7)), disks: map[string]*memdev.Device{}}
	c.text = conform.Random(kind, seed)
	// A snapshot shares what its origin has made durable.
	c.text = suspends.ReplaceAllString(c.text, "flush $1\n$0")
	s, err := conform.Parse(c.name, c.text)
	if err != nil {
		t.Fatal(err)
	}
	whole := newCutHost(0)
	if _, err := conform.Run(whole, s); err != nil {
		t.Fatal(err)
	}
	h := newCutHost(1 + c.rng.IntN(whole.power.changes))
	answers, err := conform.Run(h, s)
	if err != nil && !errors.Is(err, errPower) {
		t.Fatal(err)
	}
	c.history = remember(answers)
	for i, d := range h.disks {
		c.disks[h.names[i]] = d.CrashClone(c.rng.Uint64())
	}
	return c
}

// store writes the disks to files.
func (c *cut) store(dir string) error {
	for name, d := range c.disks {
		p := make([]byte, d.Limits().Size*blk.SectorSize)
		if err := blk.ReadSectors(env.Real(), d, p, 0); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), p, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// scripts are what comes after the cut: the first makes the devices that were there, reads them, changes them and reads them
// again; the second reads them once more.
func (c *cut) scripts() []string {
	var first, second strings.Builder
	live, after := c.history.live(), "9"+c.name[len(c.name)-3:]
	for _, w := range []io.Writer{&first, &second} {
		fmt.Fprintln(w, "# after a power cut:", c.name)
		for line := range strings.Lines(c.text) {
			if strings.HasPrefix(line, "disk ") {
				fmt.Fprint(w, line)
			}
		}
		c.start(w)
	}
	for range 20 {
		if len(live) > 0 {
			v := live[c.rng.IntN(len(live))]
			size := len(c.history.volumes[v].now)
			at := c.rng.IntN(size)
			fmt.Fprintf(&first, "write %s %d %d %s\nflush %s\n", v, at, 1+c.rng.IntN(min(200, size-at)), after, v)
		}
	}
	fmt.Fprintln(&first, "dmsetup status")
	for _, w := range []io.Writer{&first, &second} {
		c.end(w)
	}
	return []string{first.String(), second.String()}
}

// start makes the devices and reads them. An origin learns of its snapshots when it is resumed.
func (c *cut) start(w io.Writer) {
	org := false
	for _, create := range c.history.creates {
		fmt.Fprintln(w, create)
		if strings.HasPrefix(create, "dmsetup create org ") {
			org = true
			fmt.Fprintln(w, "dmsetup suspend org")
		}
	}
	if org {
		fmt.Fprintln(w, "dmsetup resume org")
	}
	fmt.Fprintln(w, "dmsetup status")
	c.read(w)
}

func (c *cut) read(w io.Writer) {
	for _, v := range c.history.live() {
		fmt.Fprintf(w, "read %s 0 %d\n", v, len(c.history.volumes[v].now))
	}
}

// end reads the devices and removes them, the newest first.
func (c *cut) end(w io.Writer) {
	c.read(w)
	creates := slices.Clone(c.history.creates)
	slices.Reverse(creates)
	for _, create := range creates {
		fmt.Fprintln(w, "dmsetup remove", strings.Fields(create)[2])
	}
}

// check finds what was flushed and is not there in the answers to the first script.
func (c *cut) check(t *testing.T, who string, answers []conform.Answer) {
	t.Helper()
	if strings.Contains(c.text, "skip_block_zeroing") { // what was there before shows
		return
	}
	seen := map[string]bool{}
	for _, a := range answers {
		if w := a.Line.Words; w[0] == "read" && !seen[w[1]] {
			seen[w[1]] = true
			if err := c.history.volumes[w[1]].check(a.Output); err != nil {
				t.Errorf("%s, %s: %s: %v", c.name, who, a.Line.Text, err)
			}
		}
	}
}

// TestKernelPowerCut cuts the power of udm's disks in the middle of random scripts. The kernel and udm start from the same disks and
// must find the same there, with all that was flushed; then each reads what the other has made of them.
func TestKernelPowerCut(t *testing.T) {
	Need(t)
	h := newUDM(t)
	var cuts []*cut
	works := map[rune]string{'K': t.TempDir(), 'U': t.TempDir()}
	dirs := []string{t.TempDir(), t.TempDir()}
	for _, w := range works {
		if err := os.Mkdir(filepath.Join(w, "disks"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, kind := range cutKinds {
		for seed := range number(*crossSeeds, 5, 50) {
			c := newCut(t, kind, uint64(seed))
			cuts = append(cuts, c)
			for i, text := range c.scripts() {
				if err := os.WriteFile(filepath.Join(dirs[i], c.name+".txt"), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(c.store(filepath.Join(works['K'], "disks")), c.store(filepath.Join(works['U'], "disks"))); err != nil {
				t.Fatal(err)
			}
		}
	}
	compareAfterCut(t, h, cuts, works, dirs)
}

func compareAfterCut(t *testing.T, h *udmHost, cuts []*cut, works map[rune]string, dirs []string) {
	t.Helper()
	for i, turns := range []map[rune]rune{{'K': 'K', 'U': 'U'}, {'K': 'U', 'U': 'K'}} { // whose disks, who
		list, err := conform.ReadDir(dirs[i])
		if err != nil {
			t.Fatal(err)
		}
		got := map[rune]map[string][]conform.Answer{}
		for disks, who := range turns {
			got[who] = runPhase(t, h, who, works[disks], dirs[i], list)
		}
		comparePhase(t, fmt.Sprintf("after the cut, phase %d", i+1), list, got['K'], got['U'])
		for _, c := range cuts {
			if i == 0 {
				c.check(t, "kernel", got['K'][c.name])
				c.check(t, "udm", got['U'][c.name])
			}
		}
	}
	for _, w := range works {
		checkCutThin(t, filepath.Join(w, "disks"))
	}
}

// checkCutThin runs thin_check on every pool's metadata; blocks that a power cut has leaked are no damage.
func checkCutThin(t *testing.T, disks string) {
	t.Helper()
	metas, err := filepath.Glob(filepath.Join(disks, "*.m"))
	if err != nil || len(metas) == 0 {
		t.Fatalf("%d metadata disks, %v", len(metas), err)
	}
	for _, m := range metas {
		if out, err := exec.Command("thin_check", "--ignore-non-fatal-errors", m).CombinedOutput(); err != nil {
			t.Errorf("thin_check %s: %v\n%s", filepath.Base(m), err, strings.TrimSpace(string(out)))
		}
	}
}
