package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/env"
)

func TestVerityCommands(t *testing.T) {
	c := &commands{t, "verity", t.TempDir()}
	data := blktest.Pattern(0, 2000, 3) // 250 blocks of 4096
	c.write("data", data)
	c.fails("dump @data", "no superblock")
	var made, dumped verityDump
	if err := json.Unmarshal([]byte(c.must("format @data @hash --root-hash-file @root --json --uuid 01234567-89ab-cdef-0123-456789abcdef")), &made); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(c.must("dump @hash --json")), &dumped); err != nil {
		t.Fatal(err)
	}
	if dumped.Root = made.Root; dumped != made || made.DataBlocks != 250 || made.HashBlocks != 3 || made.UUID != "01234567-89ab-cdef-0123-456789abcdef" {
		t.Errorf("made %+v, found %+v", made, dumped)
	}
	if out := c.must("dump @hash"); !strings.Contains(out, "Data blocks:      250\n") {
		t.Error(out)
	}
	c.must("verify @data @hash " + made.Root)
	c.must("verify @data @hash --root-hash-file @root")
	c.fails("verify @data @hash", "root hash is required")
	c.fails("verify @data @hash zz", "is not a root hash")
	c.fails("verify @data @hash --root-hash-file @root "+made.Root, "not both")
	c.fails("verify @data @hash "+strings.Repeat("00", 32), "corrupted")
	c.fails("open @data @hash "+made.Root, "--socket")
	c.flip("data", 5000)
	c.fails("verify @data @hash --root-hash-file @root", "corrupted")
	c.flip("data", 5000)
	c.must("format @data @hash --root-hash-file @root --fec-device @fec --fec-roots 4")
	c.flip("data", 5000)
	c.flip("hash", 5000)
	c.must("verify @data @hash --root-hash-file @root --fec-device @fec --fec-roots 4")
	c.serves("open @data @hash --root-hash-file @root --fec-device @fec --fec-roots 4", func(d blk.Device) {
		got := make([]byte, len(data))
		if err := blk.ReadSectors(env.Real(), d, got, 0); err != nil || !bytes.Equal(got, data) {
			t.Errorf("read something else, %v", err)
		}
	})

	c.fails("format @data @data", "overlap the data")
	c.fails("format @data @hash --salt x", "not a salt")
	c.fails("format @data @hash --uuid x", "not a UUID")
	c.fails("format @data @hash --hash none", "no hash")
	c.fails("format @data @hash --hash-offset 100", "multiple of 512")
	c.fails("format @data @hash --data-block-size 100", "powers of two")
	c.fails("format @data @hash --data-blocks 251", "251 data blocks take")
}

// TestVerityOneFile has the tree and the parity in the file of the data, and no
// superblock.
func TestVerityOneFile(t *testing.T) {
	c := &commands{t, "verity", t.TempDir()}
	data := blktest.Pattern(0, 2000, 3)
	c.write("data", data)
	options := " --no-superblock --data-blocks 250 --salt - --hash sha1 --hash-offset 1024000 --fec-device @data --fec-offset 1048576 --root-hash-file @root"
	c.must("format @data @data" + options)
	c.must("verify @data @data" + options)
	c.flip("data", 1025000)
	c.must("verify @data @data" + options)
	c.fails("dump @data --hash-offset 1024000", "no superblock")
}
