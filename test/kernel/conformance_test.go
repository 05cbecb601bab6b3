//go:build unix

package kernel

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"udm/test/kernel/conform"
)

// scripts reads the scripts that the flags ask for.
func scripts(t *testing.T) []conform.Script {
	t.Helper()
	all, err := conform.ReadDir(scriptDir)
	if err != nil || len(all) == 0 {
		t.Fatalf("%d scripts, %v", len(all), err)
	}
	if *only == "" {
		return all
	}
	var some []conform.Script
	for _, s := range all {
		if strings.Contains(","+*only+",", ","+s.Name+",") {
			some = append(some, s)
		}
	}
	return some
}

// askedEachTime leaves out what the kernel takes long for, and those whose turn it is not,
// unless flags ask for them.
func askedEachTime(all []conform.Script) (some []conform.Script) {
	if *only != "" || *update || *full {
		return all
	}
	for i, s := range all {
		if !s.Long && uint64(i)%*every == *first%*every {
			some = append(some, s)
		}
	}
	return some
}

// TestKernel asks the kernel again and compares with the golden answers; it runs random scripts on the kernel and on udm.
func TestKernel(t *testing.T) {
	Need(t)
	base := t.TempDir()
	fixed := kernelJob{dir: scriptDir, scripts: askedEachTime(scripts(t)), out: filepath.Join(base, "fixed")}
	random := kernelJob{out: filepath.Join(base, "random")}
	if *only == "" {
		random.dir, random.scripts = randomScripts(t, number(*seeds, 1, 8))
	}
	if err := errors.Join(os.Mkdir(fixed.out, 0o700), os.Mkdir(random.out, 0o700)); err != nil {
		t.Fatal(err)
	}
	ask(t, base, fixed, random)
	t.Run("golden", func(t *testing.T) { compareGolden(t, fixed) })
	t.Run("random", func(t *testing.T) { compareRandom(t, random) })
}

// compareGolden compares the kernel with what it said when it was last asked.
func compareGolden(t *testing.T, j kernelJob) {
	if *update {
		replaceGolden(t, j.out, j.scripts)
	}
	total := 0
	for _, s := range j.scripts {
		got, err := readGolden(j.out, s)
		if err != nil {
			t.Fatal(err)
		}
		want, err := readGolden(goldenDir, s)
		if err != nil {
			t.Errorf("%v (go test -run TestKernel -update makes golden answers)", err)
			continue
		}
		total += conform.CountLines(want)
		for _, d := range conform.Compare(s, want, got, conform.CompareOptions{WantName: "golden", GotName: "kernel"}) {
			t.Error(d)
		}
	}
	t.Logf("%d scripts, %d answer lines", len(j.scripts), total)
}

// compareRandom compares udm with the kernel.
func compareRandom(t *testing.T, j kernelJob) {
	h := newUDM(t)
	total := 0
	for _, s := range j.scripts {
		want, err := readGolden(j.out, s)
		if err != nil {
			t.Fatal(err)
		}
		total += conform.CountLines(want)
		t.Run(s.Name, func(t *testing.T) { h.compare(t, s, want, nil) })
	}
	t.Logf("%d scripts, %d answer lines", len(j.scripts), total)
}

// replaceGolden takes new answers. Where only the log lines differ, the old file stays.
func replaceGolden(t *testing.T, dir string, list []conform.Script) {
	t.Helper()
	for _, s := range list {
		got, err := readGolden(dir, s)
		if err != nil {
			t.Fatal(err)
		}
		want, err := readGolden(goldenDir, s)
		if err == nil && len(conform.Compare(s, want, got, conform.CompareOptions{})) == 0 {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, s.Name+".txt"))
		if err == nil {
			err = os.WriteFile(filepath.Join(goldenDir, s.Name+".txt"), text, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
