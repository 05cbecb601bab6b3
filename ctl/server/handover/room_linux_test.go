package handover

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

// The table of open files has room before anything is handed over, and no more files are open.
func TestRoom(t *testing.T) {
	var most syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &most); err != nil {
		t.Fatal(err)
	}
	before := openFiles(t)
	makeRoom()
	if n, want := tableSize(t), min(most.Cur, room); n < want {
		t.Errorf("there is room for %d open files, want %d", n, want)
	}
	if now := openFiles(t); now != before {
		t.Errorf("%d files are open, and %d were", now, before)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// tableSize is how many open files this process's table has room for.
func tableSize(t *testing.T) (n uint64) {
	t.Helper()
	f, err := os.Open("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if text, ok := strings.CutPrefix(s.Text(), "FDSize:"); ok {
			if _, err := fmt.Sscan(text, &n); err != nil {
				t.Fatal(err)
			}
		}
	}
	return n
}
