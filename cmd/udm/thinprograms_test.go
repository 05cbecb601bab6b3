package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"udm/test/need"
)

// writeMetadata makes metadata of three volumes that share blocks.
func writeMetadata(t *testing.T, path string) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 1))
	var x strings.Builder
	x.WriteString(`<superblock uuid="" time="4" transaction="9" flags="0" version="2" data_block_size="128" nr_data_blocks="4000">` + "\n")
	for id := range 3 {
		var runs strings.Builder
		mapped, thin := 0, 0
		for range 40 {
			n := 1 + rng.IntN(30)
			thin += rng.IntN(3) * 7
			fmt.Fprintf(&runs, "<range_mapping origin_begin=\"%d\" data_begin=\"%d\" length=\"%d\" time=\"%d\"/>\n", thin, rng.IntN(3900), n, rng.IntN(3))
			mapped, thin = mapped+n, thin+n
		}
		fmt.Fprintf(&x, "<device dev_id=\"%d\" mapped_blocks=\"%d\" transaction=\"%d\" creation_time=\"0\" snap_time=\"%d\">\n%s</device>\n", id*5, mapped, id, id, &runs)
	}
	x.WriteString("</superblock>\n")
	file := filepath.Join(t.TempDir(), "xml")
	if err := errors.Join(os.WriteFile(file, []byte(x.String()), 0o600), os.WriteFile(path, nil, 0o600), os.Truncate(path, 4<<20)); err != nil {
		t.Fatal(err)
	}
	if out, code := program(t, "thin_restore", "-q", "-i", file, "-o", path); code != 0 {
		t.Fatalf("exit code %d\n%s", code, out)
	}
}

// program runs one of udm's and returns what it prints and its exit code.
func program(t *testing.T, name string, args ...string) (string, int) {
	var out bytes.Buffer
	code := runThinProgram(t.Context(), name, args, &out, t.Output())
	return out.String(), code
}

// freeBlocks is a line that Debian's release has wrong.
var freeBlocks = regexp.MustCompile(`(?m)^METADATA_FREE_BLOCKS=\d+$`)

// The programs print what Debian's do and exit as they do, however options are spelled.
func TestThinProgramsAreDebians(t *testing.T) {
	need.Tools(t, thinProgramNames()...)
	dir := t.TempDir()
	t.Chdir(dir)
	writeMetadata(t, "m")
	for _, file := range []string{"zeroes", "out"} {
		if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, 4<<20)); err != nil {
			t.Fatal(err)
		}
	}
	for line := range strings.Lines(`thin_check m
		thin_check -q m
		thin_check -V
		thin_check --version
		thin_check
		thin_check nosuch
		thin_check -Z m
		thin_check --bogus m
		thin_check zeroes
		thin_check --skip-mappings m
		thin_check --super-block-only m
		thin_check --ignore-non-fatal-errors m
		thin_check -m m
		thin_check --metadata-snap m
		thin_check --auto-repair m
		thin_check --clear-needs-check-flag m
		thin_check --clear -q m
		thin_check --override-mapping-root 1 -q m
		thin_dump m
		thin_dump -f xml m
		thin_dump -fhuman_readable m
		thin_dump --format=human_readable m
		thin_dump --form human_readable m
		thin_dump -f odd m
		thin_dump -r m
		thin_dump --dev-id 5 m
		thin_dump --dev-id 5 --skip-mappings m
		thin_dump -m m
		thin_dump -m5 m
		thin_dump --metadata-snap=5 m
		thin_dump zeroes
		thin_delta --thin1 0 --thin2 5 m
		thin_delta --snap1 0 --snap2=10 m
		thin_delta --verbose --thin1 5 --thin2 10 m
		thin_delta --thin1 5 m
		thin_delta --thin1 5 --thin2 77 m
		thin_ls m
		thin_ls --no-headers m
		thin_ls --no-head -oDEV,MAPPED,EXCLUSIVE,SHARED_BYTES m
		thin_ls --format DEV,SNAP_TIME m
		thin_ls -o BOGUS m
		thin_ls -m m
		thin_ls -m5 m
		thin_delta -m5 --thin1 0 --thin2 5 m
		thin_rmap m
		thin_rmap --region 0..4000 m
		thin_rmap --region 100..120 --region 110..500 --region 3000..3001 m
		thin_rmap --region 5..5 m
		thin_rmap --region x m
		thin_repair -i m -o out
		thin_repair -i m
		thin_repair -i zeroes -o out
		thin_restore -i m -o out
		thin_restore -o out
		thin_restore -i m -o nosuch
		thin_trim --metadata-dev m
		thin_metadata_size
		thin_metadata_size -b 64k -s 100G
		thin_metadata_size -b 64k -s 100G -m 100
		thin_metadata_size -b64k -s1T -m1k
		thin_metadata_size -b 64k -s 1T -m 1000 -n
		thin_metadata_size -b 64k -s 1T -m 1000 -nshort -ug
		thin_metadata_size -b 64k -s 1T -m 1000 -nlong -u M
		thin_metadata_size --block-size=128 --pool-size 2000000 --max-thins=10 --unit=k --numeric-only=short
		thin_metadata_size -b 64k -s 2t -m 10 -u b
		thin_metadata_size -b 65 -s 2t -m 10
		thin_metadata_size -b 64k -s 2q -m 10
		thin_metadata_size -b 64k -s 2t -m 10 -u q
		thin_metadata_size -b 64k -s 2t -m 10 -nodd
`) {
		words := strings.Fields(line)
		debian := exec.Command(words[0], words[1:]...)
		want, err := debian.Output()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		got, code := program(t, words[0], words[1:]...)
		same := freeBlocks.ReplaceAllString(got, "") == freeBlocks.ReplaceAllString(string(want), "")
		if code != debian.ProcessState.ExitCode() || !same && code == 0 {
			t.Errorf("%v: exit code %d, Debian's %d\n%s\nDebian's:\n%s", words, code, debian.ProcessState.ExitCode(), got, want)
		}
	}
	if out, code := program(t, "thin_dump", "--json", "m"); code != 0 || !strings.Contains(out, `"origin": `) {
		t.Errorf("exit code %d\n%s", code, out)
	}
}

// What is repaired by Debian's program or by udm's is the same.
func TestThinProgramsWrite(t *testing.T) {
	need.Tools(t, "thin_repair", "thin_dump")
	t.Chdir(t.TempDir())
	writeMetadata(t, "m")
	for _, file := range []string{"a", "b"} {
		if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, 4<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if out, code := program(t, "thin_repair", "-i", "m", "--output=a"); code != 0 {
		t.Fatalf("exit code %d\n%s", code, out)
	}
	if out, err := exec.Command("thin_repair", "-i", "m", "-o", "b").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var dumps []string
	for _, file := range []string{"m", "a", "b"} {
		out, err := exec.Command("thin_dump", file).Output()
		if err != nil {
			t.Fatal(err)
		}
		dumps = append(dumps, string(out))
	}
	if dumps[0] != dumps[1] || dumps[0] != dumps[2] {
		t.Error("the dumps differ")
	}
	if err := errors.Join(os.WriteFile("data", nil, 0o600), os.Truncate("data", 4000*64<<10)); err != nil {
		t.Fatal(err)
	}
	if out, code := program(t, "thin_trim", "--metadata-dev", "m", "--data-dev", "data"); code != 0 || !strings.HasPrefix(out, "discarded ") {
		t.Errorf("exit code %d\n%s", code, out)
	}
}
