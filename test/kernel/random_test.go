//go:build unix

package kernel

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"udm/test/kernel/conform"
)

// randomScripts writes random scripts into a new folder, n of each kind.
func randomScripts(t *testing.T, n int) (string, []conform.Script) {
	t.Helper()
	dir := t.TempDir()
	for _, kind := range conform.Kinds {
		for seed := range n {
			path := filepath.Join(dir, fmt.Sprintf("%s-%03d.txt", kind, seed))
			if err := os.WriteFile(path, []byte(conform.Random(kind, uint64(seed))), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	list, err := conform.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return dir, list
}

// TestKernelRandom runs the same random scripts on the kernel and on udm.
func TestKernelRandom(t *testing.T) {
	Need(t)
	h := newUDM(t)
	dir, list := randomScripts(t, number(*seeds, 2, 8))
	job := kernelJob{dir: dir, scripts: list, out: t.TempDir()}
	if err := job.ask(context.Background()); err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, s := range list {
		want, err := readGolden(job.out, s)
		if err != nil {
			t.Fatal(err)
		}
		total += conform.CountLines(want)
		t.Run(s.Name, func(t *testing.T) { h.compare(t, s, want, nil) })
	}
	t.Logf("%d scripts, %d answer lines", len(list), total)
}
