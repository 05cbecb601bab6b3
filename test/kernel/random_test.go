//go:build unix

package kernel

import (
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
