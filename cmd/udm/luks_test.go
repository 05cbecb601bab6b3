package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/nbdclient"
	"udm/env"
	"udm/targets/crypt/skcipher"
)

// luksCommands runs udm luks in a folder of its own.
type luksCommands struct {
	*testing.T
	dir string
}

func (l *luksCommands) path(name string) string { return filepath.Join(l.dir, name) }

func (l *luksCommands) write(name string, p []byte) {
	l.Helper()
	if err := os.WriteFile(l.path(name), p, 0o600); err != nil {
		l.Fatal(err)
	}
}

// run runs a command line, in which files are named @NAME.
func (l *luksCommands) run(ctx context.Context, line string) (string, error) {
	var out bytes.Buffer
	err := l.runTo(ctx, line, &out)
	return out.String(), err
}

func (l *luksCommands) runTo(ctx context.Context, line string, out io.Writer) error {
	cmd := rootCommand()
	words := append([]string{"luks"}, strings.Fields(line)...)
	for i, w := range words {
		words[i] = strings.Replace(w, "@", l.dir+"/", 1)
	}
	cmd.SetArgs(words)
	cmd.SetOut(out)
	cmd.SetErr(out)
	return cmd.ExecuteContext(ctx)
}

func (l *luksCommands) must(line string) string {
	l.Helper()
	out, err := l.run(l.Context(), line)
	if err != nil {
		l.Fatalf("udm luks %s: %v\n%s", line, err, out)
	}
	return out
}

func (l *luksCommands) fails(line, want string) {
	l.Helper()
	if out, err := l.run(l.Context(), line); err == nil || !strings.Contains(err.Error(), want) {
		l.Errorf("udm luks %s: %v, want %s\n%s", line, err, want, out)
	}
}

func newLuks(t *testing.T) *luksCommands {
	l := &luksCommands{t, t.TempDir()}
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
	l.fails("dump @disk", "no LUKS disk")
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
	l.fails("remove-key @disk x", "no number")
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
	table, err := o.table(cmd, l.path("disk"))
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(table)
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
	dir, err := os.MkdirTemp("", "udm") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	r, w := io.Pipe()
	go func() {
		err := l.runTo(ctx, "open @disk --key-file @one --socket "+dir+"/s", w)
		w.CloseWithError(err)
		ended <- err
	}()
	uri, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	c, err := nbdclient.DialURI(ctx, strings.TrimSpace(uri), nbdclient.Options{})
	if err != nil {
		t.Fatal(err)
	}
	data := blktest.Pattern(0, 8, 3)
	got := make([]byte, len(data))
	err = errors.Join(blk.WriteSectors(env.Real(), c, data, 0, 0), blk.ReadSectors(env.Real(), c, got, 0), blk.FlushDevice(env.Real(), c), c.Close())
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("read something else than was written, %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	p, err := os.ReadFile(l.path("disk"))
	if err != nil {
		t.Fatal(err)
	}
	if _, plain := blktest.SeedOf(p[16<<20:16<<20+512], 0); plain || bytes.Equal(p[16<<20:16<<20+512], make([]byte, 512)) {
		t.Error("the disk holds plain text, or nothing")
	}
}
