package secret

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"
)

// TestLocked looks at what the kernel says of the pages: they are locked, and not dumped.
func TestLocked(t *testing.T) {
	b := Take([]byte("the key"))
	defer b.Close()
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	start := fmt.Sprintf("%x-", uintptr(unsafe.Pointer(&b.Bytes()[0])))
	_, own, found := strings.Cut(string(maps), "\n"+start)
	if !found {
		t.Fatal("the secret has no mapping of its own")
	}
	flags := ""
	for line := range strings.Lines(own) {
		if rest, ok := strings.CutPrefix(line, "VmFlags:"); ok {
			flags = rest
			break
		}
	}
	for _, want := range []string{" lo", " dd", " dc"} {
		if !strings.Contains(flags, want) {
			t.Errorf("the flags of the page are%s, want%s", flags, want)
		}
	}
}
