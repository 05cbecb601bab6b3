package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const kernelLog = "../../targets/log-writes/testdata/linux-6.1.log"

// command runs udm within this process.
func command(args ...string) (out string, err error) {
	var b bytes.Buffer
	cmd := rootCommand()
	cmd.SetArgs(args)
	cmd.SetOut(&b)
	cmd.SetErr(&b)
	err = cmd.Execute()
	return b.String(), err
}

func TestLogWritesLs(t *testing.T) {
	out, err := command("log-writes", "ls", kernelLog)
	if lines := strings.Split(out, "\n"); err != nil || len(lines) != 11 ||
		lines[1] != "       0  write                 4         2" || strings.Join(strings.Fields(lines[5]), " ") != `4 mark "hello"` {
		t.Errorf("%v\n%s", err, out)
	}
	out, err = command("log-writes", "ls", "--json", kernelLog)
	if err != nil || !strings.Contains(out, `"mark": "dm-log-writes-end"`) {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestLogWritesReplay stops and checks where it should, on an empty disk of 32 KiB.
func TestLogWritesReplay(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "disk")
	const first = `test "$(head -c 2049 "$1" | tail -c 1)" = A`
	for _, c := range []struct{ args, check, out, err string }{
		{"", "", "9 entries replayed, 0 checks\n", ""},
		{"--to-mark hello", "", "5 entries replayed, 0 checks\n", ""},
		{"--to-entry 0", "", "1 entries replayed, 0 checks\n", ""},
		{"--to-entry 0", first, "1 entries replayed, 1 checks\n", ""},
		{"--every-flush", first, "9 entries replayed, 2 checks\n", ""},
		{"--every-fua", "false", "9 entries replayed, 0 checks\n", ""},
		{"--every-flush --to-entry 1", first, "2 entries replayed, 1 checks\n", ""},
		{"--every-flush", "echo seen; false", "seen\n", "the check failed after entry 1 flush: exit status 1"},
		{"--to-mark none", first, "", `the log has no mark "none"; the whole log was replayed`},
		{"--to-entry 9", "", "", "the log has no entry 9, only 9 entries; the whole log was replayed"},
		{"--every-flush", "", "", "--every-flush and --every-fua require --check COMMAND"},
	} {
		if err := os.WriteFile(disk, make([]byte, 32<<10), 0o600); err != nil {
			t.Fatal(err)
		}
		args := append([]string{"log-writes", "replay", kernelLog, disk}, strings.Fields(c.args)...)
		if c.check != "" {
			args = append(args, "--check", c.check)
		}
		out, err := command(args...)
		if text := errorText(err); out != c.out || text != c.err {
			t.Errorf("%s, check %q: %q, error %q; want %q, error %q", c.args, c.check, out, text, c.out, c.err)
		}
	}
	p, err := os.ReadFile(disk)
	if err != nil || !bytes.Equal(p, make([]byte, 32<<10)) {
		t.Errorf("refused and yet changed: %v", err)
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestLogWritesRefusesDevice(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, make([]byte, 2048), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := command("log-writes", "replay", kernelLog, disk)
	if want := "entry 0 write 4+2: the device ends at sector 4"; errorText(err) != want {
		t.Errorf("%v, want %q", err, want)
	}
}
