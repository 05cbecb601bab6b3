//go:build unix

package kernel

import (
	"context"
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
func phaseScripts(t *testing.T, n int) (dirs [phases]string, lists [phases][]conform.Script) {
	t.Helper()
	for p := range phases {
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
	for p := range phases {
		var err error
		if lists[p], err = conform.ReadDir(dirs[p]); err != nil {
			t.Fatal(err)
		}
	}
	return dirs, lists
}

// TestKernelCrossBoot runs random scripts in three phases on the same disks: all on udm, then in turns with the kernel. The answers must be
// the same whoever runs a phase, so each reads in full what the other has left.
func TestKernelCrossBoot(t *testing.T) {
	Need(t)
	h := newUDM(t)
	dirs, lists := phaseScripts(t, number(*crossSeeds, 5, 50))
	var want [phases]map[string][]conform.Answer
	for _, turns := range []string{"UUU", "UKU", "KUK"} {
		work := t.TempDir()
		if err := os.Mkdir(filepath.Join(work, "disks"), 0o700); err != nil {
			t.Fatal(err)
		}
		for p, who := range turns {
			got := runPhase(t, h, who, work, dirs[p], lists[p])
			if want[p] == nil {
				want[p] = got
			}
			comparePhase(t, fmt.Sprintf("%s, phase %d", turns, p+1), lists[p], want[p], got)
		}
		checkThin(t, filepath.Join(work, "disks"))
	}
}

// runPhase runs scripts on the disks below work, on the kernel (K) or on udm (U).
func runPhase(t *testing.T, h *udmHost, who rune, work, dir string, list []conform.Script) map[string][]conform.Answer {
	t.Helper()
	if who == 'K' {
		job := kernelJob{dir: dir, scripts: list, out: work, keep: true}
		if err := job.ask(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	h.keep = filepath.Join(work, "disks")
	answers := map[string][]conform.Answer{}
	for _, s := range list {
		var err error
		if who == 'K' {
			answers[s.Name], err = readGolden(work, s)
		} else {
			answers[s.Name], err = conform.Run(h, s)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return answers
}

func comparePhase(t *testing.T, phase string, list []conform.Script, want, got map[string][]conform.Answer) {
	t.Helper()
	total := 0
	for _, s := range list {
		total += conform.CountLines(want[s.Name])
		for _, d := range conform.Compare(s, want[s.Name], got[s.Name], conform.CompareOptions{WantName: "UUU", GotName: "got"}) {
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
