package main

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"udm/ctl"
	"udm/test/need"
)

const cacheXML = `<superblock uuid="" block_size="128" nr_cache_blocks="700" policy="smq" hint_width="4">
  <mappings>
    <mapping cache_block="0" origin_block="5" dirty="false"/>
    <mapping cache_block="1" origin_block="6" dirty="true"/>
    <mapping cache_block="699" origin_block="9" dirty="true"/>
  </mappings>
  <hints>
    <hint cache_block="0" data="AQAAAA=="/>
    <hint cache_block="1" data="AgAAAA=="/>
    <hint cache_block="699" data="PwAAAA=="/>
  </hints>
</superblock>
`

// The cache programs print what Debian's do and exit as they do.
func TestCacheProgramsAreDebians(t *testing.T) {
	need.Tools(t, "cache_check", "cache_dump", "cache_restore", "cache_repair", "cache_writeback", "cache_metadata_size")
	t.Chdir(t.TempDir())
	for file, text := range map[string]string{"xml": cacheXML, "twice": strings.Replace(cacheXML, "</superblock>", "", 1)} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"m", "n", "zeroes", "bad"} {
		if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if out, code := program(t, "cache_restore", "-i", "xml", "--output=m"); code != 0 {
		t.Fatalf("exit code %d\n%s", code, out)
	}
	if out, code := program(t, "cache_restore", "--metadata-version", "2", "-i", "xml", "-o", "n"); code != 0 {
		t.Fatalf("exit code %d\n%s", code, out)
	}
	for line := range strings.Lines(`cache_check m
		cache_check n
		cache_check -q m
		cache_check --super-block-only m
		cache_check --skip-mappings --skip-hints --skip-discards m
		cache_check --clear-needs-check-flag m
		cache_check -V
		cache_check
		cache_check nosuch
		cache_check zeroes
		cache_check --bogus m
		cache_dump m
		cache_dump --repair m
		cache_dump zeroes
		cache_dump nosuch
		cache_dump
		cache_restore -i xml
		cache_restore -o bad
		cache_restore -i nosuch -o bad
		cache_restore -i xml -o nosuch
		cache_restore -i twice -o bad
		cache_restore -i m -o bad
		cache_repair -i m -o bad
		cache_repair -i m
		cache_repair -i zeroes -o bad
		cache_metadata_size --nr-blocks 1
		cache_metadata_size --nr-blocks 163840
		cache_metadata_size --block-size 128 --device-size 1000000
		cache_metadata_size --nr-blocks 100000 --max-hint-width 8
		cache_metadata_size --nr-blocks 1000000 --max-hint-width 0
		cache_metadata_size
		cache_metadata_size --block-size 128
		cache_metadata_size --block-size 128 --device-size 128000 --nr-blocks 100
		cache_writeback
		cache_writeback --metadata-device m
`) {
		words := strings.Fields(line)
		debian := exec.Command("/usr/sbin/"+words[0], words[1:]...)
		want, err := debian.Output()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		got, code := program(t, words[0], words[1:]...)
		if debian.ProcessState.ExitCode() != code || code == 0 && got != string(want) {
			t.Errorf("%s\ngot exit code %d and\n%swant %d and\n%s", strings.TrimSpace(line), code, got, debian.ProcessState.ExitCode(), want)
		}
	}
}

// Dirty blocks are written back, and the metadata then says that they are clean.
func TestCacheWriteback(t *testing.T) {
	c := &commands{t, "cache", t.TempDir()}
	c.write("xml", []byte(strings.NewReplacer("700", "8", "699", "7").Replace(cacheXML)))
	fast := make([]byte, 8*64<<10)
	for i := range fast {
		fast[i] = byte(i >> 16)
	}
	c.write("fast", fast)
	c.write("slow", make([]byte, 16*64<<10))
	c.fails("restore @xml @fast --metadata-version 3", "1 or 2")
	for _, version := range []string{"1", "2"} {
		for option, want := range map[string]string{"": "2/2", " --omit-clean-shutdown": "3/3"} {
			c.write("m", make([]byte, 1<<20))
			c.must("restore @xml @m --metadata-version " + version + option)
			if out := c.must("writeback @m @fast @slow"); out != want+" blocks successfully copied.\n" {
				t.Errorf("version %s%s: %s", version, option, out)
			}
			if out := c.must("check @m"); out != "3 of 8 blocks in use, 0 dirty, closed in order, 0 fatal errors, 0 other errors\n" {
				t.Errorf("version %s%s: %s", version, option, out)
			}
		}
	}
	slow, err := os.ReadFile(c.path("slow"))
	if err != nil || slow[6*64<<10] != 1 || slow[9*64<<10] != 7 {
		t.Errorf("%v: blocks 6 and 9 of the origin are not those of the cache", err)
	}
	c.fails("size --block-size 128", "belong together")
}

// The status shows how much a cache serves.
func TestCacheHits(t *testing.T) {
	d := ctl.Device{Status: []ctl.Line{{Target: "cache", Params: "8 20/256 64 3/32 30 10 1 3 0 3 2 1 writeback 2 migration_threshold 2048 smq 0 rw - "}}}
	hs := hitsOf(d)
	if len(hs) != 1 || hs[0].String() != "75.0% of 40 reads, 25.0% of 4 writes, 2 blocks dirty" {
		t.Errorf("%v", hs)
	}
}
