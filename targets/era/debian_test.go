package era_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/env"
	"udm/targets/era/eratools"
	"udm/test/need"
)

// TestToolsAreDebians compares all answers about the metadata of random histories with
// those of Debian's tools. Of metadata that have lost power, the answers are the same once
// the device was opened again: Debian's leave out the era that was running.
func TestToolsAreDebians(t *testing.T) {
	need.Tools(t, "era_check", "era_dump", "era_invalidate", "era_restore")
	t.Chdir(t.TempDir())
	for seed := range uint64(every(12, 3)) {
		d := newDisks()
		h := newHistory(seed, mustStart(t, d))
		for v := range uint64(20 + h.rng.IntN(100)) {
			h.step(v + 1)
		}
		if seed%3 == 0 {
			d = d.crash(seed)
			store(t, d.mems["a"], "m")
			debian(t, "era_check", "m")
			h.x = mustStart(t, d)
		}
		if err := h.x.control.Close(); err != nil {
			t.Fatal(err)
		}
		compareTools(t, d.mems["a"], h.at+1)
	}
}

func store(t *testing.T, d blk.Device, path string) {
	t.Helper()
	p := make([]byte, d.Limits().Size*blk.SectorSize)
	if err := blk.ReadSectors(env.Real(), d, p, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, p, 0o600); err != nil {
		t.Fatal(err)
	}
}

func compareTools(t *testing.T, d blk.Device, last uint32) {
	t.Helper()
	store(t, d, "m")
	debian(t, "era_check", "m")
	for _, logical := range []bool{false, true} {
		args := []string{"m"}
		if logical {
			args = []string{"--logical", "m"}
		}
		var got bytes.Buffer
		if err := eratools.Dump(env.Real(), d, &got, eratools.DumpOptions{Logical: logical}); err != nil {
			t.Fatal(err)
		}
		same(t, "era_dump", got.String(), debian(t, "era_dump", args...))
	}
	restored := memdev.New(d.Limits().Size)
	ok(t, eratools.Restore(env.Real(), strings.NewReader(debian(t, "era_dump", "m")), restored))
	var again bytes.Buffer
	ok(t, eratools.Dump(env.Real(), restored, &again, eratools.DumpOptions{}))
	same(t, "restored here", again.String(), debian(t, "era_dump", "m"))
	sound(t, restored)
	store(t, restored, "r")
	debian(t, "era_check", "r")
	same(t, "read there", again.String(), debian(t, "era_dump", "r"))
	for since := range last + 2 {
		var got bytes.Buffer
		if err := eratools.Invalidate(env.Real(), d, &got, since, false); err != nil {
			t.Fatal(err)
		}
		same(t, "era_invalidate", got.String(), debian(t, "era_invalidate", "--written-since", fmt.Sprint(since), "m"))
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func debian(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(filepath.Join("/usr/sbin", name), args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			out = exit.Stderr
		}
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func same(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got\n%.2000s\nDebian's\n%.2000s", what, got, want)
	}
}
