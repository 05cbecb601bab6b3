package nbd_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/env"
	"udm/export"
	"udm/export/nbd"
	"udm/test/need"
	"udm/test/watchdog"
)

// run runs a tool and returns what it printed; it must succeed.
func run(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	out, err := tryRun(t, stdin, args...)
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return out
}

func tryRun(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	c := exec.Command(args[0], args[1:]...)
	c.Stdin = strings.NewReader(stdin)
	// The distribution's python has the module nbd; another one may come first.
	c.Env = append(os.Environ(), "PATH=/usr/bin:"+os.Getenv("PATH"))
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := watchdog.Run(c, 10*time.Minute)
	return out.String(), err
}

// share serves a memory disk of 16 MiB with data at 1 MiB and from 8 to 9 MiB
// and returns the disk and its URI.
func share(t *testing.T) (d *memdev.Device, uri string) {
	d = memdev.New(16<<20/blk.SectorSize, memdev.Volatile)
	for _, w := range []struct{ sector, sectors uint64 }{{2048, 128}, {16384, 2048}} {
		if err := blk.WriteSectors(env.Real(), d, blktest.Pattern(w.sector, w.sectors, 5), w.sector, 0); err != nil {
			t.Fatal(err)
		}
	}
	_, addr := serve(t, nbd.Config{Exports: nbd.Fixed{{Info: nbd.Info{Name: "disk", Description: "a disk"}, Device: export.Check(d), Extents: d.Extents, SparseReads: true}}})
	return d, "nbd+unix:///disk?socket=" + addr
}

func content(t *testing.T, d blk.Device) []byte {
	p := make([]byte, d.Limits().Size*blk.SectorSize)
	if err := blk.ReadSectors(env.Real(), d, p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestNbdinfo(t *testing.T) {
	need.Tools(t, "nbdinfo")
	_, uri := share(t)
	var info struct {
		Exports []struct {
			Name        string `json:"export-name"`
			Description string
			Size        uint64 `json:"export-size"`
			Contexts    []string
			MultiConn   bool `json:"can_multi_conn"`
			FUA         bool `json:"can_fua"`
			FastZero    bool `json:"can_fast_zero"`
			DF          bool `json:"can_df"`
			Min         int  `json:"block_size_minimum"`
			Max         int  `json:"block_size_maximum"`
		}
	}
	for _, how := range []string{"--json", "--list"} {
		out := run(t, "", "nbdinfo", "--json", how, uri)
		if err := json.Unmarshal([]byte(out), &info); err != nil || len(info.Exports) != 1 {
			t.Fatalf("%v\n%s", err, out)
		}
		e := info.Exports[0]
		if e.Name != "disk" || e.Size != 16<<20 || !e.MultiConn || !e.FUA || !e.FastZero || !e.DF || e.Min != 512 || e.Max != 32<<20 ||
			len(e.Contexts) != 1 || e.Contexts[0] != "base:allocation" {
			t.Errorf("%s: %+v", how, e)
		}
	}
	expect(t, strings.Split(strings.TrimSpace(squeeze(run(t, "", "nbdinfo", "--map", uri))), "\n"),
		"0 1048576 3 hole,zero", "1048576 65536 0 data", "1114112 7274496 3 hole,zero", "8388608 1048576 0 data", "9437184 7340032 3 hole,zero")
}

// nbdinfo asks about each of many exports.
func TestNbdinfoListOfThousands(t *testing.T) {
	need.Tools(t, "nbdinfo")
	const n = 5000
	d := memdev.New(2048)
	all := make(nbd.Fixed, n)
	for i := range all {
		all[i] = nbd.Export{Info: nbd.Info{Name: fmt.Sprintf("disk-%d", i)}, Device: export.Check(d), Extents: d.Extents}
	}
	_, addr := serve(t, nbd.Config{Exports: all})
	out := run(t, "", "nbdinfo", "--list", "--json", "nbd+unix:///?socket="+addr)
	if got := strings.Count(out, `"export-size": 1048576`); got != n {
		t.Errorf("%d of %d exports", got, n)
	}
}

func squeeze(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = strings.Join(strings.Fields(l), " ")
	}
	return strings.Join(lines, "\n")
}

func TestNbdshEveryCommandAndError(t *testing.T) {
	need.Tools(t, "nbdsh")
	_, uri := share(t)
	for _, structured := range []string{"True", "False"} {
		socket := uri[strings.Index(uri, "=")+1:]
		out := run(t, "", "nbdsh", "-c", fmt.Sprintf("structured = %s\nsocket = %q", structured, socket), "-c", "exec(open('testdata/commands.py').read())")
		if !strings.Contains(out, "all good") {
			t.Error(out)
		}
	}
}

func TestQemuImg(t *testing.T) {
	need.Tools(t, "qemu-img")
	d, uri := share(t)
	if out := run(t, "", "qemu-img", "info", "-f", "raw", uri); !strings.Contains(out, "16 MiB (16777216 bytes)") {
		t.Error(out)
	}
	var extents []struct {
		Start, Length uint64
		Zero, Data    bool
	}
	out := run(t, "", "qemu-img", "map", "-f", "raw", "--output=json", uri)
	if err := json.Unmarshal([]byte(out), &extents); err != nil || len(extents) != 5 || !extents[1].Data || extents[1].Start != 1<<20 || !extents[2].Zero {
		t.Errorf("%v\n%s", err, out)
	}
	raw := filepath.Join(t.TempDir(), "raw")
	if err := os.WriteFile(raw, content(t, d), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "", "qemu-img", "compare", "-f", "raw", "-F", "raw", uri, raw)
	run(t, "", "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", "-m", "8", "-W", raw, uri)
	run(t, "", "qemu-img", "compare", "-f", "raw", "-F", "raw", uri, raw)
	for _, extra := range [][]string{{}, {"-w"}, {"-w", "--flush-interval=100"}} {
		args := append([]string{"qemu-img", "bench", "-f", "raw", "-c", "5000", "-d", "32"}, extra...)
		run(t, "", append(args, uri)...)
	}
}

func TestNbdcopyThereAndBack(t *testing.T) {
	need.Tools(t, "nbdcopy")
	d, uri := share(t)
	dir := t.TempDir()
	there, back := filepath.Join(dir, "there"), filepath.Join(dir, "back")
	data := make([]byte, 16<<20)
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(data[3<<20 : 9<<20])
	if err := os.WriteFile(there, data, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "", "nbdcopy", "--flush", there, uri)
	run(t, "", "nbdcopy", uri, back)
	copied, err := os.ReadFile(back)
	if err != nil {
		t.Fatal(err)
	}
	if sha256.Sum256(copied) != sha256.Sum256(data) || !bytes.Equal(content(t, d), data) {
		t.Error("what came back is not what went there")
	}
}

func TestNbdkitFilters(t *testing.T) {
	need.Tools(t, "nbdkit", "nbdcopy", "qemu-io", "qemu-img")
	d, uri := share(t)
	raw := filepath.Join(t.TempDir(), "raw")
	if err := os.WriteFile(raw, content(t, d), 0o600); err != nil {
		t.Fatal(err)
	}
	io := `qemu-io -f raw -c "write -P 7 0 64k" -c "write -f -P 8 64k 4k" -c "write -z 4k 4k" -c "discard 8k 4k" -c "flush" ` +
		`-c "read -P 7 0 4k" -c "read -P 0 4k 4k" -c "read -P 8 64k 4k" "$uri"`
	for _, c := range []struct{ filter, args, command string }{
		{"checkwrite", "", "nbdcopy " + raw + ` "$uri"`},
		{"fua", "fuamode=native", io},
		{"fua", "fuamode=force", io},
		{"fua", "fuamode=emulate", io},
		{"blocksize", "minblock=4096 maxdata=64k", io},
		{"multi-conn", "multi-conn-mode=plugin", `qemu-img bench -f raw -w -c 3000 -d 32 "$uri" && ` + io},
		{"multi-conn", "multi-conn-mode=emulate", io},
	} {
		t.Run(c.filter+" "+c.args, func(t *testing.T) {
			args := []string{"nbdkit", "-U", "-", "--filter=" + c.filter, "nbd", "uri=" + uri}
			args = append(args, strings.Fields(c.args)...)
			out := run(t, "", append(args, "--run", c.command)...)
			if strings.Contains(out, "verification failed") {
				t.Error(out)
			}
		})
	}
}

// Random operations through qemu, each compared with a file by blkverify.
func TestQemuIoBlkverify(t *testing.T) {
	need.Tools(t, "qemu-io")
	_, uri := share(t)
	socket := uri[strings.Index(uri, "=")+1:]
	raw := filepath.Join(t.TempDir(), "raw")
	if err := os.WriteFile(raw, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(raw, 16<<20); err != nil {
		t.Fatal(err)
	}
	run(t, "", "qemu-io", "-f", "raw", "-c", "write -z 0 16M", uri)
	const seed, operations = 7, 20000
	out := run(t, mixed(seed, operations), "qemu-io", "blkverify:"+raw+":nbd:unix:"+socket+":exportname=disk")
	if n := strings.Count(out, "ops;"); n < operations || strings.Contains(out, "failed") || strings.Contains(out, "mismatch") {
		t.Errorf("%d of %d operations (seed %d)\n%.2000s", n, operations, seed, out)
	}
	run(t, "", "qemu-img", "compare", "-f", "raw", "-F", "raw", uri, raw)
}

// mixed is a qemu-io script: groups of requests that are in flight together,
// each in a stripe of its own.
func mixed(seed uint64, n int) string {
	rng := rand.New(rand.NewPCG(seed, 0))
	var b strings.Builder
	for i := range n {
		stripe := uint64(i%16) << 20
		at := stripe + rng.Uint64N(1<<20/512-256)*512
		length := (1 + rng.Uint64N(256)) * 512
		switch rng.IntN(10) {
		case 0, 1, 2, 3:
			fmt.Fprintf(&b, "aio_read %d %d\n", at, length)
		case 4:
			fmt.Fprintf(&b, "aio_write -f -P %d %d %d\n", rng.IntN(256), at, length)
		default:
			fmt.Fprintf(&b, "aio_write -P %d %d %d\n", rng.IntN(256), at, length)
		}
		if i%16 == 15 {
			b.WriteString("aio_flush\n")
		}
	}
	b.WriteString("aio_flush\nflush\nquit\n")
	return b.String()
}

func TestFioVerify(t *testing.T) {
	need.Tools(t, "fio")
	_, uri := share(t)
	for _, bs := range []string{"4k-4k", "512-128k"} {
		out := run(t, "", "fio", "--name=v", "--ioengine=nbd", "--uri="+uri, "--rw=randwrite", "--bsrange="+bs, "--iodepth=64",
			"--numjobs=4", "--size=4M", "--offset_increment=4M", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--fsync=64", "--group_reporting",
			"--verify_state_save=0", "--thread")
		if !strings.Contains(out, "err= 0") {
			t.Errorf("%s\n%s", bs, out)
		}
	}
}
