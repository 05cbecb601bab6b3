package logwrites_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/env"
	"udm/targets/internal/targettest"
	logwrites "udm/targets/log-writes"
	"udm/test/need"
)

// replayed replays a log onto an empty disk and returns the disk and what ls
// would show.
func replayed(t *testing.T, log io.ReaderAt, sectors uint64) (*memdev.Device, string) {
	t.Helper()
	l, err := logwrites.OpenLog(log)
	if err != nil {
		t.Fatal(err)
	}
	d := memdev.New(sectors)
	var b strings.Builder
	for {
		e, err := l.Next()
		if err == io.EOF {
			return d, b.String()
		}
		if err == nil {
			err = e.Replay(env.Real(), d)
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&b, e)
	}
}

func content(t *testing.T, d blk.Device, sectors uint64) []byte {
	t.Helper()
	p := make([]byte, sectors*blk.SectorSize)
	if err := blk.ReadSectors(env.Real(), d, p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestReplaysLinux: the log that a real kernel wrote, see testdata/README.
func TestReplaysLinux(t *testing.T) {
	p, err := os.ReadFile("testdata/linux-6.1.log")
	if err != nil {
		t.Fatal(err)
	}
	d, ls := replayed(t, bytes.NewReader(p), 64)
	want(t, ls, `0 write 4+2
1 flush
2 write 8+2
3 flush
4 mark "hello"
5 mark "yes"
6 discard 8+16
7 write 9+1
8 mark "dm-log-writes-end"
`)
	disk := make([]byte, 64*blk.SectorSize)
	copy(disk[4*blk.SectorSize:], bytes.Repeat([]byte{'A'}, 1024))
	copy(disk[9*blk.SectorSize:], bytes.Repeat([]byte{'B'}, 512))
	if !bytes.Equal(content(t, d, 64), disk) {
		t.Error("another content than that of the kernel's disk")
	}
}

// TestReplaysOwn: what was logged, replayed, is the disk, in blocks of both
// sizes.
func TestReplaysOwn(t *testing.T) {
	for _, block := range []uint32{512, 4096} {
		r := targettest.New(t, types, func(l *blk.Limits) { l.LogicalBlock, l.PhysicalBlock = block, block })
		d := r.Device("x", "0 4096 log-writes a b")
		r.Write(d, 16, 2048, 5)
		r.Write(d, 24, 8, 6)
		r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
		r.Do(d, blk.Discard, 64, 64, 0, blk.OK)
		r.Write(d, 72, 8, 7)
		r.Message(d, "mark end", "", 0)
		r.Must(d.Close())
		got, ls := replayed(t, blk.NewFile(r.Sim, r.Disk("b")), 4096)
		disk := make([]byte, 4096*blk.SectorSize)
		r.Must(blk.ReadSectors(r.Sim, r.Disk("a"), disk, 0))
		if !bytes.Equal(content(t, got, 4096), disk) {
			t.Errorf("another content with blocks of %d:\n%s", block, ls)
		}
	}
}

// TestReplaysQemu: the log that qemu's blklogwrites writes.
func TestReplaysQemu(t *testing.T) {
	need.Tools(t, "qemu-io")
	for _, block := range []int{512, 4096} {
		disk, log := filepath.Join(t.TempDir(), "disk"), filepath.Join(t.TempDir(), "log")
		for _, path := range []string{disk, log} {
			if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<20)); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command("qemu-io", "-c", "write -P 0x41 4k 8k", "-c", "flush", "-c", "write -f -P 0x42 8k 4k",
			"-c", "discard 4k 4k", "-c", "write -P 0x43 20k 4k", "-c", "write -z 16k 8k", "-c", "flush", "--image-opts",
			fmt.Sprintf("driver=blklogwrites,file.driver=file,file.filename=%s,log.driver=file,log.filename=%s,log-sector-size=%d", disk, log, block))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		f, err := os.Open(log)
		if err != nil {
			t.Fatal(err)
		}
		got, ls := replayed(t, f, 2048)
		f.Close()
		whole, err := os.ReadFile(disk)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(content(t, got, 2048), whole) {
			t.Errorf("another content than qemu's disk, blocks of %d:\n%s", block, ls)
		}
		if !strings.HasPrefix(ls, "0 write 8+16\n1 flush\n2 write 16+8\n3 discard 8+8\n4 write 40+8\n5 flush\n6 write 32+16\n7 flush\n") {
			t.Errorf("entries:\n%s", ls)
		}
	}
}

// aLog is a log of 512-byte blocks with one entry.
func aLog(sector, blocks, flags, dataLen uint64, text string) []byte {
	p := make([]byte, 2048)
	for i, n := range []uint64{0x6a736677736872, 1, 1, 512} {
		binary.LittleEndian.PutUint64(p[8*i:], n)
	}
	for i, n := range []uint64{sector, blocks, flags, dataLen} {
		binary.LittleEndian.PutUint64(p[512+8*i:], n)
	}
	copy(p[544:], text)
	return p
}

func TestRefusesLogs(t *testing.T) {
	bad := func(at int, b byte) []byte {
		p := aLog(0, 1, 0, 0, "")
		p[at] = b
		return p
	}
	for name, c := range map[string]struct {
		log  []byte
		want string
	}{
		"empty":        {nil, "superblock of the log: unexpected EOF"},
		"magic":        {bad(0, 0), "not a log"},
		"version":      {bad(8, 2), "version 2"},
		"block":        {bad(24, 1), "blocks of 513 bytes"},
		"small block":  {bad(25, 1), "blocks of 256 bytes"},
		"zeroes":       {aLog(5, 0, 0, 0, ""), "neither flags nor blocks"},
		"text":         {aLog(0, 1, 0, 0, "x"), "text in what is no mark"},
		"long mark":    {aLog(0, 0, 8, 481, ""), "text of 481 bytes"},
		"long":         {aLog(0, 1<<60, 0, 0, ""), "malformed: block 0"},
		"far":          {aLog(1<<63, 1, 0, 0, ""), "malformed: block"},
		"outside":      {aLog(64, 1, 0, 0, ""), "entry 0 write 64+1: the device ends at sector 64"},
		"cut in data":  {aLog(0, 3, 0, 0, ""), "data in the log: unexpected EOF"},
		"cut in entry": {aLog(0, 1, 0, 0, "")[:1000], "entry 0 of the log: unexpected EOF"},
	} {
		l, err := logwrites.OpenLog(bytes.NewReader(c.log))
		var e *logwrites.Entry
		if err == nil {
			e, err = l.Next()
		}
		if err == nil {
			err = e.Replay(env.Real(), memdev.New(64))
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// FuzzLog: whatever a log holds, reading ends, stays within the log, and writes
// within the device.
func FuzzLog(f *testing.F) {
	golden, err := os.ReadFile("testdata/linux-6.1.log")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	f.Add(aLog(2, 2, 3, 0, ""))
	f.Add(aLog(0, 0, 8, 3, "abc"))
	f.Fuzz(func(t *testing.T, p []byte) {
		l, err := logwrites.OpenLog(bytes.NewReader(p))
		if err != nil {
			return
		}
		d := memdev.New(64)
		for {
			e, err := l.Next()
			if err != nil {
				return
			}
			if e.Sectors > 0 && e.Sector+e.Sectors < e.Sector {
				t.Fatalf("%v goes around", e)
			}
			err = e.Replay(env.Real(), d)
			if fits := e.Sector+e.Sectors <= 64; err == nil && !fits {
				t.Fatalf("%v was replayed on 64 sectors", e)
			}
		}
	})
}
