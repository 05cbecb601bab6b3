package qcow2

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/readdev"
	"udm/env"
	"udm/test/need"
)

func unzstd(dst, src []byte) error {
	r, err := zstd.NewReader(bytes.NewReader(src), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(4<<20))
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.ReadFull(r, dst)
	return err
}

// maker makes random images with the tools of qemu.
type maker struct {
	t   *testing.T
	dir string
	rng *rand.Rand
	log strings.Builder
}

func (m *maker) run(name string, args ...string) {
	m.t.Helper()
	if out, err := m.try(name, args...); err != nil {
		m.t.Fatalf("%v: %s\n%s", err, out, &m.log)
	}
}

func (m *maker) try(name string, args ...string) ([]byte, error) {
	fmt.Fprintf(&m.log, "%s %q\n", name, args)
	c := exec.Command(name, args...)
	c.Dir = m.dir
	return c.CombinedOutput()
}

func (m *maker) one(of ...string) string { return of[m.rng.IntN(len(of))] }

// image makes an image over backing, which may be "", and returns its file.
func (m *maker) image(depth int, backing, format string) string {
	name := fmt.Sprintf("i%d", depth)
	size := fmt.Sprint(512 * (1 + m.rng.IntN(8192)))
	cluster := 512 << m.rng.IntN(13)
	o := []string{fmt.Sprintf("cluster_size=%d", cluster)}
	compress := true
	switch m.rng.IntN(5) {
	case 0:
		o = append(o, "compat=0.10")
	case 1:
		o = append(o, "compression_type=zstd", "lazy_refcounts="+m.one("on", "off"))
	case 2:
		if cluster >= 16<<10 {
			o = append(o, "extended_l2=on", "compression_type="+m.one("zlib", "zstd"))
		}
	case 3:
		raw := "off"
		if backing == "" {
			raw = m.one("on", "off")
		}
		o, compress = append(o, "data_file="+name+".data", "data_file_raw="+raw), false
	}
	if backing == "" && m.rng.IntN(4) == 0 {
		o = append(o, "preallocation="+m.one("metadata", "falloc", "full"))
	}
	args := []string{"create", "-q", "-f", "qcow2", "-o", strings.Join(o, ",")}
	if backing != "" {
		args = append(args, "-b", backing, "-F", format)
	}
	m.run("qemu-img", append(args, name, size)...)
	m.change(name, "qcow2", size, cluster, compress)
	if compress && m.rng.IntN(6) == 0 { // not with a data file
		// qemu-io may find that it has made a corrupt image, which is then only read.
		m.try("qemu-img", "snapshot", "-c", "s", name)
		m.change(name, "qcow2", size, cluster, compress)
	}
	return name
}

// change writes, zeroes and discards at random.
func (m *maker) change(name, format, size string, cluster int, compress bool) {
	var n int
	fmt.Sscan(size, &n)
	args := []string{"-f", format}
	for range 3 + m.rng.IntN(12) {
		at := m.rng.IntN(n) &^ 511
		length := min(512+m.rng.IntN(64<<10)&^511, n-at)
		where := fmt.Sprintf("%d %d", at, length)
		switch m.rng.IntN(6) {
		case 0:
			args = append(args, "-c", m.one("write -z ", "write -zu ", "discard ")+where)
		case 1, 2:
			if at = at / cluster * cluster; compress && at+cluster <= n {
				args = append(args, "-c", fmt.Sprintf("write -c -P %d %d %d", 1+m.rng.IntN(255), at, cluster))
			}
		default:
			args = append(args, "-c", fmt.Sprintf("write -P %d %s", 1+m.rng.IntN(255), where))
		}
	}
	m.try("qemu-io", append(args, name)...) // writing compressed fails over what is there already
}

// chain makes a chain and returns its top.
func (m *maker) chain() string {
	name, format := "", ""
	if m.rng.IntN(3) == 0 {
		name, format = "raw", "raw"
		size := fmt.Sprint(512 * (1 + m.rng.IntN(4096)))
		m.run("qemu-img", "create", "-q", "-f", "raw", name, size)
		m.change(name, "raw", size, 1<<30, false)
	}
	for depth := range 1 + m.rng.IntN(3) {
		name, format = m.image(depth, name, format), "qcow2"
	}
	if m.rng.IntN(5) == 0 {
		m.run("qemu-img", "convert", "-c", "-O", "qcow2", "-o", "compression_type="+m.one("zlib", "zstd"), name, "packed")
		name = "packed"
	}
	return name
}

var images = flag.Uint64("images", 10, "how many random images are made")

// What the tools of qemu make reads as they read it.
func TestImagesOfQemu(t *testing.T) {
	need.Tools(t, "qemu-img", "qemu-io")
	seed := rand.Uint64()
	for i := range *images {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			blktest.Leaks(t)
			t.Logf("seed %d", seed+i)
			m := &maker{t: t, dir: t.TempDir(), rng: rand.New(rand.NewPCG(seed+i, 0))}
			name := m.chain()
			m.run("qemu-img", "convert", "-O", "raw", name, "plain")
			want, err := os.ReadFile(filepath.Join(m.dir, "plain"))
			if err != nil {
				t.Fatal(err)
			}
			d, err := Open(env.Real(), filepath.Join(m.dir, name), Options{Zstd: unzstd, Cache: 1 << (12 + m.rng.IntN(10))})
			if err != nil {
				t.Fatalf("%v\n%s", err, &m.log)
			}
			if got := d.Limits().Size * 512; got != uint64(len(want)) {
				t.Errorf("it has %d bytes, want %d", got, len(want))
			}
			readAll(t, m.rng, d, want)
			holes(t, d, want)
			d.Close()
			if t.Failed() {
				t.Log(m.log.String())
			}
		})
	}
}

// readAll reads from many places at the same time.
func readAll(t *testing.T, rng *rand.Rand, d *readdev.Device, want []byte) {
	var all sync.WaitGroup
	sectors := uint64(len(want)) / 512
	for at := uint64(0); at < sectors; {
		n := min(1+rng.Uint64N(400), sectors-at)
		from := at
		all.Go(func() {
			p := bytes.Repeat([]byte{0xee}, int(n)*512)
			if err := blk.ReadSectors(env.Real(), d, p, from); err != nil {
				t.Errorf("sectors %d+%d: %v", from, n, err)
			} else if !bytes.Equal(p, want[from*512:][:n*512]) {
				t.Errorf("sectors %d+%d are wrong", from, n)
			}
		})
		at += n
	}
	all.Wait()
}

// holes checks that a hole reads as zeroes and that the map is whole.
func holes(t *testing.T, d *readdev.Device, want []byte) {
	for at, end := uint64(0), uint64(len(want))/512; at < end; {
		list, err := d.Extents(at, end-at)
		if err != nil || len(list) == 0 || list[0].Sector != at {
			t.Fatalf("map at %d: %v, %v", at, list, err)
		}
		for _, x := range list {
			if !x.Data && len(bytes.Trim(want[x.Sector*512:][:x.Sectors*512], "\x00")) > 0 {
				t.Errorf("%+v is no hole", x)
			}
		}
		at += blk.SumExtents(list)
	}
}

// What is behind the end of a backing file is zero, whatever its last cluster holds.
func TestShortBackingFile(t *testing.T) {
	need.Tools(t, "qemu-img", "qemu-io")
	m := &maker{t: t, dir: t.TempDir()}
	m.run("qemu-img", "create", "-q", "-f", "qcow2", "base", "96k")
	m.run("qemu-io", "-f", "qcow2", "-c", "write -P 7 0 96k", "base")
	m.run("qemu-img", "resize", "-q", "--shrink", "base", "80k")
	m.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "top", "1M")
	d, err := Open(env.Real(), filepath.Join(m.dir, "top"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := append(bytes.Repeat([]byte{7}, 80<<10), make([]byte, 1<<20-80<<10)...)
	got := make([]byte, 1<<20)
	if err := blk.ReadSectors(env.Real(), d, got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("wrong, or %v", err)
	}
	holes(t, d, want)
	if x := blk.ExtentsOf(d, 0, 2048); len(x) != 2 || x[0].Sectors != 160 {
		t.Errorf("map %v", x)
	}
	d.Close()
}

func TestRefusals(t *testing.T) {
	need.Tools(t, "qemu-img")
	m := &maker{t: t, dir: t.TempDir(), rng: rand.New(rand.NewPCG(1, 1))}
	create := func(args ...string) { m.run("qemu-img", append([]string{"create", "-q", "-f", "qcow2"}, args...)...) }
	create("plain", "1M")
	create("zstd", "-o", "compression_type=zstd", "1M")
	create("over", "-b", "plain", "-F", "qcow2")
	create("under", "-u", "-b", "above", "-F", "qcow2", "1M")
	create("above", "-u", "-b", "under", "-F", "qcow2", "1M")
	create("self", "-u", "-b", "./self", "-F", "qcow2", "1M")
	create("remote", "-u", "-b", "nbd://h/x", "-F", "raw", "1M")
	create("json", "-u", "-b", `json:{"driver":"raw"}`, "-F", "raw", "1M")
	create("vmdk", "-u", "-b", "plain", "-F", "vmdk", "1M")
	create("lonely", "-u", "-b", "nothing", "-F", "raw", "1M")
	create("secret", "--object", "secret,id=s,data=x", "-o", "encrypt.format=aes,encrypt.key-secret=s", "1M")
	for name, want := range map[string]string{
		"zstd": "zstd", "under": "its own backing file", "self": "its own backing file", "remote": "only files", "json": "only files",
		"vmdk": `format "vmdk"`, "secret": "encrypted", "lonely": "no such file", "raw": "not a qcow2 image",
	} {
		if name == "raw" {
			os.WriteFile(filepath.Join(m.dir, name), make([]byte, 1024), 0o600)
		}
		d, err := Open(env.Real(), filepath.Join(m.dir, name), Options{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
		if err == nil {
			d.Close()
		}
	}
	// A relative name is relative to the image, whatever leads there.
	if err := os.Mkdir(filepath.Join(m.dir, "dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	d, err := Open(env.Real(), filepath.Join(m.dir, "dir", "..", "over"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	e := env.Real()
	if err := blk.WriteSectors(e, d, make([]byte, 512), 0, 0); !errors.Is(err, blk.ReadOnly) {
		t.Errorf("a write: %v", err)
	}
	if err := blk.FlushDevice(e, d); err != nil {
		t.Error(err)
	}
	d.Close()
}

// memory is files that are not there.
func memory(files map[string][]byte) opener {
	return func(path string) (*file, error) {
		p, ok := files[filepath.Base(path)]
		if !ok {
			return nil, os.ErrNotExist
		}
		return &file{bytes.NewReader(p), io.NopCloser(nil), int64(len(p)), nil}, nil
	}
}

// seeds are small images with all that there is.
func seeds(t testing.TB) (all [][]byte) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "base"), make([]byte, 5120), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, o := range []string{"cluster_size=512", "cluster_size=512,compat=0.10", "cluster_size=512,compression_type=zstd", "cluster_size=16k,extended_l2=on"} {
		name := filepath.Join(dir, fmt.Sprint(i))
		for _, args := range [][]string{
			{"qemu-img", "create", "-q", "-f", "qcow2", "-o", o, "-b", "base", "-F", "raw", name, "64k"},
			{"qemu-io", "-f", "qcow2", "-c", "write -c -P 1 0 16k", "-c", "write -P 2 16k 4k", "-c", "write -z 32k 16k", name},
		} {
			if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
				need.Missing(t, fmt.Sprintf("%v: %v: %s", args, err, out))
			}
		}
		p, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

// FuzzImage: whatever an image says, reading it ends, in bounded memory.
func FuzzImage(f *testing.F) {
	for _, p := range seeds(f) {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p []byte) { readDamaged(p) })
}

func readDamaged(p []byte) {
	d, err := open(env.Real(), "/image", memory(map[string][]byte{"image": p, "base": make([]byte, 5000)}), Options{Zstd: unzstd, Cache: 64 << 10})
	if err != nil {
		return
	}
	defer d.Close()
	size := d.Limits().Size
	buf := make([]byte, 64<<10)
	for _, at := range []uint64{0, 32, 64, size / 2, size - min(size, 128)} {
		n := min(size-min(size, at), uint64(len(buf))/512)
		if n > 0 {
			blk.ReadSectors(env.Real(), d, buf[:n*512], at)
			d.Extents(at, size-at)
		}
	}
}

// Each byte of the headers and tables damaged, in many ways.
func TestDamagedImages(t *testing.T) {
	need.Tools(t, "qemu-img", "qemu-io")
	blktest.Leaks(t)
	rng := rand.New(rand.NewPCG(rand.Uint64(), 0))
	for _, good := range seeds(t) {
		for range 500 {
			bad := bytes.Clone(good)
			for range 1 + rng.IntN(3) {
				at := rng.IntN(len(bad))
				if rng.IntN(2) == 0 {
					at = rng.IntN(min(len(bad), 200))
				}
				bad[at] = byte(rng.Uint64())
			}
			readDamaged(bad)
		}
	}
}
