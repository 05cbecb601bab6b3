//go:build unix

package kernel

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"udm/test/kernel/conform"
)

const phases = 3

// phaseScripts writes the phases of random scripts, one folder per phase. The scripts have the same names in all phases.
func phaseScripts(t *testing.T, n int) []phase {
	t.Helper()
	dirs := make([]string, phases)
	for p := range dirs {
		dirs[p] = t.TempDir()
	}
	for _, kind := range conform.Persistent {
		for seed := range n {
			for p, text := range conform.Phases(kind, uint64(seed), phases) {
				path := filepath.Join(dirs[p], fmt.Sprintf("%s-%03d.txt", kind, seed))
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return readPhases(t, dirs)
}

// phase is what is done without a change of hands.
type phase struct {
	dir     string
	scripts []conform.Script
}

func readPhases(t *testing.T, dirs []string) (all []phase) {
	t.Helper()
	for _, dir := range dirs {
		list, err := conform.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, phase{dir, list})
	}
	return all
}

// relay is phases on the same disks, each run by the kernel or by udm.
type relay struct {
	turns  string // who: K or U
	phases []phase
	work   string                        // folder of the answers; work/disks has the disks
	got    []map[string][]conform.Answer // by phase, then by script
}

func newRelay(t *testing.T, base, name, turns string, phases []phase) *relay {
	t.Helper()
	r := &relay{turns: turns, phases: phases, work: filepath.Join(base, name)}
	if err := os.MkdirAll(r.disks(), 0o700); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *relay) disks() string { return filepath.Join(r.work, "disks") }

// next is whose turn it is, or 0.
func (r *relay) next() byte {
	if len(r.got) == len(r.turns) {
		return 0
	}
	return r.turns[len(r.got)]
}

// onUDM runs phases until it is the kernel's turn.
func (r *relay) onUDM(t *testing.T, h *udmHost) {
	t.Helper()
	h.keep = r.disks()
	for r.next() == 'U' {
		r.take(t, func(s conform.Script) ([]conform.Answer, error) { return conform.Run(h, s) })
	}
}

// job is the phase that is the kernel's.
func (r *relay) job() kernelJob {
	p := r.phases[len(r.got)]
	return kernelJob{dir: p.dir, scripts: p.scripts, out: r.work, keep: true}
}

// take notes the answers of a phase.
func (r *relay) take(t *testing.T, answers func(conform.Script) ([]conform.Answer, error)) {
	t.Helper()
	got := map[string][]conform.Answer{}
	for _, s := range r.phases[len(r.got)].scripts {
		var err error
		if got[s.Name], err = answers(s); err != nil {
			t.Fatal(err)
		}
	}
	r.got = append(r.got, got)
}

// run runs all relays. The kernel is booted once for those whose turn it is at the same time.
func run(t *testing.T, h *udmHost, base string, relays ...*relay) {
	t.Helper()
	for {
		var jobs []kernelJob
		var asked []*relay
		for _, r := range relays {
			if r.onUDM(t, h); r.next() == 'K' {
				jobs, asked = append(jobs, r.job()), append(asked, r)
			}
		}
		if len(jobs) == 0 {
			return
		}
		ask(t, base, jobs...)
		for _, r := range asked {
			r.take(t, func(s conform.Script) ([]conform.Answer, error) { return readGolden(r.work, s) })
		}
	}
}

// TestKernelCrossBoot lets the kernel and udm go on from each other's disks: from those of whole scripts, and from those that have lost
// power.
func TestKernelCrossBoot(t *testing.T) {
	Need(t)
	h := newUDM(t)
	base := t.TempDir()
	inTurns, cuts := newTurns(t, base), newCuts(t, base)
	run(t, h, base, append(inTurns, cuts.kernels, cuts.udms)...)
	t.Run("in turns", func(t *testing.T) { checkTurns(t, inTurns) })
	t.Run("after power cuts", cuts.check)
}

// newTurns are random scripts in three phases on the same disks: all on udm, then in turns with the kernel.
func newTurns(t *testing.T, base string) (all []*relay) {
	phases := phaseScripts(t, number(*crossSeeds, 1, 50))
	for _, turns := range []string{"UUU", "UKU", "KUK"} {
		all = append(all, newRelay(t, base, turns, turns, phases))
	}
	return all
}

// checkTurns: the answers are the same whoever runs a phase, so each reads in full what the other has left.
func checkTurns(t *testing.T, all []*relay) {
	for _, r := range all {
		for p := range r.phases {
			comparePhase(t, fmt.Sprintf("%s, phase %d", r.turns, p+1), r.phases[p].scripts, all[0].got[p], r.got[p])
		}
		checkThin(t, r.disks())
	}
}

func comparePhase(t *testing.T, phase string, list []conform.Script, want, got map[string][]conform.Answer) {
	t.Helper()
	total := 0
	for _, s := range list {
		total += conform.CountLines(want[s.Name])
		for _, d := range conform.Compare(s, want[s.Name], got[s.Name], conform.CompareOptions{WantName: "want", GotName: "got"}) {
			t.Errorf("%s: %s", phase, d)
		}
	}
	t.Logf("%s: %d scripts, %d answer lines", phase, len(list), total)
}

// checkThin runs thin_check on every pool's metadata.
func checkThin(t *testing.T, disks string) {
	t.Helper()
	metas, err := filepath.Glob(filepath.Join(disks, "thin-*.m"))
	if err != nil || len(metas) == 0 {
		t.Fatalf("%d metadata disks, %v", len(metas), err)
	}
	for _, m := range metas {
		if out, err := exec.Command("thin_check", m).CombinedOutput(); err != nil {
			t.Errorf("thin_check %s: %v\n%s", filepath.Base(m), err, strings.TrimSpace(string(out)))
		}
	}
}
