package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// A log that was moved away is begun anew when it is opened again.
func TestLogIsOpenedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	log, done, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	fmt.Fprintln(log, "before")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(log, "still the old one")
	if err := log.(*logFile).reopen(); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(log, "after")
	for file, want := range map[string]string{path: "after\n", path + ".1": "before\nstill the old one\n"} {
		if got, err := os.ReadFile(file); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", file, got, err)
		}
	}
}
