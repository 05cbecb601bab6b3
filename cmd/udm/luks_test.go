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
	"udm/targets/crypt/skcipher"
)

func newLuks(t *testing.T) *commands {
	l := &commands{t, "luks", t.TempDir()}
	l.write("disk", nil)
	if err := os.Truncate(l.path("disk"), 20<<20); err != nil {
		t.Fatal(err)
	}
	l.write("one", []byte("first\n"))
	l.write("two", []byte("--second--"))
	return l
}

const cheapSlot = " --pbkdf pbkdf2 --pbkdf-iterations 1000"

func TestLuksCommands(t *testing.T) {
	l := newLuks(t)
	l.fails("dump @disk", "is not a LUKS disk")
	l.fails("format @disk", "no terminal")
	l.must("format @disk --key-file @one --label test" + cheapSlot)
	l.must("open @disk --test --key-file @one")
	l.fails("open @disk --test --key-file @two", "no key slot opens")
	l.fails("open @disk --key-file @one", "--socket")
	if out := l.must("add-key @disk --key-file @one --new-key-file @two --new-key-file-offset 2 --new-key-file-size 6" + cheapSlot); out != "key slot 1\n" {
		t.Error(out)
	}
	l.fails("open @disk --test --key-file @two", "no key slot opens")
	l.must("open @disk --test --key-file @two --key-file-offset 2 --key-file-size 6")
	l.fails("open @disk --test --key-file @two --key-file-size 60", "ends after 10 bytes")
	l.fails("open @disk --test --key-file @two --key-fd 0", "not from both")
	var d luksDump
	if err := json.Unmarshal([]byte(l.must("dump @disk --json")), &d); err != nil || d.Version != 2 || d.Label != "test" || len(d.Slots) != 2 || d.KeyBits != 512 {
		t.Errorf("%+v, %v", d, err)
	}
	if out := l.must("dump @disk"); !strings.Contains(out, "aes-xts-plain64") || !strings.Contains(out, "1000 iterations") {
		t.Error(out)
	}
	l.must("backup @disk @backup")
	l.fails("backup @disk @backup", "exists")
	l.must("remove-key @disk 0")
	l.fails("remove-key @disk 0", "not in use")
	l.fails("remove-key @disk x", "is not a key slot number")
	l.fails("remove-key @disk 1", "last one")
	l.fails("open @disk --test --key-file @one", "no key slot opens")
	l.must("restore @disk @backup")
	l.must("open @disk --test --key-file @one")
	if out := l.must("change-key @disk --key-file @one --new-key-file @two" + cheapSlot); out != "key slot 0\n" {
		t.Error(out)
	}
	l.must("open @disk --test --key-file @two --slot 0")
	p, err := os.ReadFile(l.path("disk"))
	if err != nil {
		t.Fatal(err)
	}
	clear(p[:4096])
	l.write("disk", p)
	if out := l.must("dump @disk"); !strings.Contains(out, "the first copy of the header") {
		t.Error(out)
	}
	l.must("repair @disk")
	if out := l.must("dump @disk"); strings.Contains(out, "copy") {
		t.Error(out)
	}
}

// TestLuksTable: the table that open serves decrypts what lies behind a detached
// header.
func TestLuksTable(t *testing.T) {
	l := newLuks(t)
	l.write("header", make([]byte, 16<<20))
	l.must("format @header --detached --cipher aes-cbc-essiv:sha256 --key-size 256 --key-file @one" + cheapSlot)
	o := luksOpen{header: l.path("header"), slot: -1, secret: secret{file: l.path("one"), fd: -1}}
	cmd := rootCommand()
	tables, err := o.tables(cmd, l.path("disk"))
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(tables.disk)
	if strings.Join(words[:4], " ") != "0 40960 crypt aes-cbc-essiv:sha256" || len(words[4]) != 64 || strings.Join(words[5:], " ") != "0 "+l.path("disk")+" 0" {
		t.Errorf("%v without its key", append(words[:4:4], words[5:]...))
	}
	if _, err := skcipher.Parse(words[3]); err != nil {
		t.Error(err)
	}
}

// TestLuksServes has udm luks open serve a disk until it is told to end.
func TestLuksServes(t *testing.T) {
	l := newLuks(t)
	l.must("format @disk --key-file @one" + cheapSlot)
	l.serves("open @disk --key-file @one", func(c blk.Device) {
		data := blktest.Pattern(0, 8, 3)
		got := make([]byte, len(data))
		err := errors.Join(blk.WriteSectors(env.Real(), c, data, 0, 0), blk.ReadSectors(env.Real(), c, got, 0), blk.FlushDevice(env.Real(), c))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("read something else than was written, %v", err)
		}
	})
	p, err := os.ReadFile(l.path("disk"))
	if err != nil {
		t.Fatal(err)
	}
	if _, plain := blktest.SeedOf(p[16<<20:16<<20+512], 0); plain || bytes.Equal(p[16<<20:16<<20+512], make([]byte, 512)) {
		t.Error("the disk holds plain text, or nothing")
	}
}

// TestLuksIntegrity formats a disk with authenticated sectors, all of which can be read, and
// serves it. A changed sector fails to read.
func TestLuksIntegrity(t *testing.T) {
	l := newLuks(t)
	l.fails("format @disk --detached --integrity aead --key-file @one", "--detached")
	l.fails("format @disk --version 1 --integrity hmac-sha256 --key-file @one", "no integrity")
	l.fails("format @disk --integrity aead --key-file @one", "no authenticated encryption")
	l.must("format @disk --integrity hmac-sha256 --offset 18874368 --key-file @one" + cheapSlot)
	if out := l.must("dump @disk"); !strings.Contains(out, "hmac(sha256)") || !strings.Contains(out, "768 bits") {
		t.Error(out)
	}
	data := blktest.Pattern(0, 8, 3)
	l.serves("open @disk --key-file @one", func(c blk.Device) {
		all := make([]byte, c.Limits().Size*blk.SectorSize)
		err := errors.Join(blk.ReadSectors(env.Real(), c, all, 0), blk.WriteSectors(env.Real(), c, data, 0, 0), blk.FlushDevice(env.Real(), c))
		if err != nil || !bytes.Equal(all, make([]byte, len(all))) {
			t.Errorf("a new disk does not read as zeroes, %v", err)
		}
	})
	l.must("format @disk --integrity aead --cipher aes-gcm-random --key-size 256 --integrity-no-wipe --offset 18874368 --key-file @one" + cheapSlot)
	l.serves("open @disk --key-file @one", func(c blk.Device) {
		got := make([]byte, len(data))
		if blk.ReadSectors(env.Real(), c, got, 0) == nil {
			t.Error("sectors that were never written can be read")
		}
		err := errors.Join(blk.WriteSectors(env.Real(), c, data, 0, 0), blk.ReadSectors(env.Real(), c, got, 0))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("read something else than was written, %v", err)
		}
	})
}
