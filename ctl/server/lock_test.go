//go:build unix

package server

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// The lock names its process and nothing else, whatever it had before.
func TestLockIsSigned(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "lock")
	if err := os.WriteFile(path, []byte("123456789012345\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := lockRoot(root)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if text, err := os.ReadFile(path); err != nil || string(text) != fmt.Sprintln(os.Getpid()) {
		t.Errorf("%q, %v", text, err)
	}
}
