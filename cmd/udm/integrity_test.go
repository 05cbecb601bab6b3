package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/env"
)

func TestIntegrityCommands(t *testing.T) {
	c := &commands{t, "integrity", t.TempDir()}
	c.write("disk", nil)
	if err := os.Truncate(c.path("disk"), 4<<20); err != nil {
		t.Fatal(err)
	}
	c.write("key", []byte("a secret"))
	c.fails("dump @disk", "no superblock")
	c.fails("format @disk --integrity none", "no hash")
	c.fails("format @disk --sector-size 100", "block_size")
	c.fails("format @disk --integrity hmac-sha256", "key")
	var made, found integrityDump
	if err := json.Unmarshal([]byte(c.must("format @disk --integrity hmac-sha256 --integrity-key-file @key --sector-size 4096 --json")), &made); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(c.must("dump @disk --json")), &found); err != nil {
		t.Fatal(err)
	}
	if made.Version != 5 || made.TagSize != 32 || made.SectorSize != 4096 || made.Provided != found.Provided || made.Provided < 7000 {
		t.Errorf("made %+v, found %+v", made, found)
	}
	c.fails("open @disk", "--socket")
	c.fails("open @disk --socket @s --integrity-no-journal --integrity-recovery-mode", "only one of")
	data := blktest.Pattern(8, 64, 3)
	open := "open @disk --integrity hmac-sha256 --integrity-key-file @key"
	c.serves(open, func(d blk.Device) {
		e, zeroes := env.Real(), make([]byte, 4096)
		if err := blk.ReadSectors(e, d, zeroes, d.Limits().Size-8); err != nil || !bytes.Equal(zeroes, make([]byte, 4096)) {
			t.Errorf("the last block is not zero, %v", err)
		}
		if err := blk.WriteSectors(e, d, data, 8, 0); err != nil {
			t.Error(err)
		}
	})
	for _, mode := range []string{"", " --integrity-bitmap-mode --bitmap-sectors-per-bit 64", " --integrity-no-journal", " --integrity-bitmap-mode", " --integrity-recovery-mode"} {
		c.serves(open+mode, func(d blk.Device) {
			got := make([]byte, len(data))
			if err := blk.ReadSectors(env.Real(), d, got, 8); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s: read something else, %v", mode, err)
			}
		})
	}
	sealed := " --journal-integrity hmac-sha256 --journal-integrity-key-file @key --journal-crypt cbc-aes --journal-crypt-key-file @aes"
	c.write("aes", []byte("sixteen bytes!!!"))
	c.fails("format @disk --journal-crypt xyz-aes --journal-crypt-key-file @aes", "journal cipher")
	if out := c.must("format @disk --integrity sha256" + sealed); !strings.Contains(out, "have_journal_mac fix_padding fix_hmac") {
		t.Error(out)
	}
	for range 2 {
		c.serves("open @disk --integrity sha256"+sealed, func(d blk.Device) {
			got := make([]byte, len(data))
			err := errors.Join(blk.WriteSectors(env.Real(), d, data, 8, 0), blk.ReadSectors(env.Real(), d, got, 8))
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("read something else, %v", err)
			}
		})
	}
	c.must("format @disk --no-wipe --tag-size 2 --integrity sha256 --integrity-legacy-padding")
	c.serves("open @disk --integrity sha256", func(d blk.Device) {
		if err := blk.ReadSectors(env.Real(), d, make([]byte, 4096), 8); err == nil {
			t.Error("read a block that has no tag")
		}
	})
}
