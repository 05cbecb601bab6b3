package main

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"udm/test/need"
)

const eraXML = `<superblock uuid="" block_size="128" nr_blocks="20" current_era="5">
  <writeset era="4" nr_bits="20"><bit block="3" value="true"/><bit block="19" value="true"/></writeset>
  <writeset era="5" nr_bits="20"><bit block="7" value="true"/></writeset>
  <era_array><era block="0" era="1"/><era block="5" era="3"/><era block="6" era="3"/></era_array>
</superblock>
`

// The era programs print what Debian's do and exit as they do.
func TestEraProgramsAreDebians(t *testing.T) {
	need.Tools(t, "era_check", "era_dump", "era_restore", "era_invalidate")
	t.Chdir(t.TempDir())
	if err := os.WriteFile("xml", []byte(eraXML), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"m", "zeroes", "bad"} {
		if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if out, code := program(t, "era_restore", "-q", "-i", "xml", "--output=m"); code != 0 {
		t.Fatalf("exit code %d\n%s", code, out)
	}
	for line := range strings.Lines(`era_check m
		era_check -q m
		era_check --super-block-only m
		era_check -V
		era_check
		era_check nosuch
		era_check zeroes
		era_check --bogus m
		era_dump m
		era_dump --logical m
		era_dump --repair m
		era_dump zeroes
		era_dump nosuch
		era_dump
		era_invalidate --written-since 0 m
		era_invalidate --written-since 1 m
		era_invalidate --written-since 4 m
		era_invalidate --written-since=6 m
		era_invalidate --written-since x m
		era_invalidate --written-since 3 zeroes
		era_invalidate --metadata-snapshot --written-since 3 m
		era_invalidate m
		era_restore -i xml
		era_restore -o bad
		era_restore -i nosuch -o bad
		era_restore -i xml -o nosuch
		era_restore -i m -o bad
`) {
		words := strings.Fields(line)
		debian := exec.Command("/usr/sbin/"+words[0], words[1:]...)
		want, err := debian.Output()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		got, code := program(t, words[0], words[1:]...)
		if code != debian.ProcessState.ExitCode() || got != string(want) && code == 0 {
			t.Errorf("%v: exit code %d, Debian's %d\n%s\nDebian's:\n%s", words, code, debian.ProcessState.ExitCode(), got, want)
		}
	}
}
