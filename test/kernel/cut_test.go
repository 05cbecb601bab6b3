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

// cuts are random scripts in which udm's disks lost power. The kernel and udm start from the same disks and must find the same there,
// with all that was flushed; then each reads what the other has made of them.
type cuts struct {
	all           []*cut
	kernels, udms *relay // by who begins
}

func newCuts(t *testing.T, base string) *cuts {
	t.Helper()
	dirs := []string{t.TempDir(), t.TempDir()}
	cs := &cuts{}
	for _, kind := range cutKinds {
		for seed := range number(*crossSeeds, 1, 50) {
			c := newCut(t, kind, uint64(seed))
			cs.all = append(cs.all, c)
			for i, text := range c.scripts() {
				if err := os.WriteFile(filepath.Join(dirs[i], c.name+".txt"), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	phases := readPhases(t, dirs)
	cs.kernels, cs.udms = newRelay(t, base, "cut-K", "KU", phases), newRelay(t, base, "cut-U", "UK", phases)
	for _, c := range cs.all {
		if err := errors.Join(c.store(cs.kernels.disks()), c.store(cs.udms.disks())); err != nil {
			t.Fatal(err)
		}
	}
	return cs
}

func (cs *cuts) check(t *testing.T) {
	k, u := cs.kernels, cs.udms
	comparePhase(t, "after the cut, kernel and udm", k.phases[0].scripts, k.got[0], u.got[0])
	comparePhase(t, "after the other, kernel and udm", k.phases[1].scripts, u.got[1], k.got[1])
	for _, c := range cs.all {
		c.check(t, "kernel", k.got[0][c.name])
		c.check(t, "udm", u.got[0][c.name])
	}
	checkCutThin(t, k.disks())
	checkCutThin(t, u.disks())
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
