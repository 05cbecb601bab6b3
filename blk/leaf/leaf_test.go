package leaf

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/filedev"
	"udm/blk/memdev"
	"udm/env"
	"udm/export"
	"udm/export/nbd"
	"udm/test/need"
)

func newFile(t *testing.T, name string, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t *testing.T, o *Opener, name string, write bool) (blk.Device, blk.Number) {
	t.Helper()
	d, n, err := o.Open(name, write)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return d, n
}

func closeAll(t *testing.T, ds ...blk.Device) {
	t.Helper()
	for _, d := range ds {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestNumbers(t *testing.T) {
	o := New(env.Real())
	a, b := newFile(t, "a", 4096), newFile(t, "b", 4096)
	da, na := open(t, o, a, true)
	db, nb := open(t, o, b, true)
	dm, nm := open(t, o, "mem:1M", true)
	if na != (blk.Number{Major: 7, Minor: 0}) || nb != (blk.Number{Major: 7, Minor: 1}) || nm != (blk.Number{Major: 1, Minor: 0}) {
		t.Fatalf("numbers %v %v %v", na, nb, nm)
	}
	// A number is as good as the name, for as long as the disk is open.
	again, n := open(t, o, "7:1", false)
	if n != nb || o.Name(nb) != b {
		t.Fatalf("7:1 is %v, %s", n, o.Name(nb))
	}
	closeAll(t, da)
	dc, nc := open(t, o, newFile(t, "c", 4096), true)
	if nc != na {
		t.Errorf("the lowest free number is %v, got %v", na, nc)
	}
	closeAll(t, db)
	if o.Name(nb) != b {
		t.Error("the number has gone with one of two opens")
	}
	closeAll(t, again)
	if o.Name(nb) != "" {
		t.Error("the number has not gone with the last open")
	}
	if _, _, err := o.Open("7:1", false); !errors.Is(err, syscall.ENXIO) {
		t.Errorf("a number of nothing: %v", err)
	}
	closeAll(t, dc, dm)
}

func TestOneDiskByManyNames(t *testing.T) {
	o := New(env.Real())
	path := newFile(t, "a", 4096)
	link := path + ".link"
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	hard := path + ".hard"
	if err := os.Link(path, hard); err != nil {
		t.Fatal(err)
	}
	var ds []blk.Device
	for _, name := range []string{path, link, hard, filepath.Dir(path) + "/./a"} {
		for _, write := range []bool{true, false} {
			d, n := open(t, o, name, write)
			if n.Minor != 0 {
				t.Errorf("%s has another number: %v", name, n)
			}
			ds = append(ds, d)
		}
	}
	closeAll(t, ds...)
}

func TestMemoryDisksAreSharedByName(t *testing.T) {
	e := env.Real()
	o := New(e)
	a, _ := open(t, o, "mem:64K", true)
	b, _ := open(t, o, "mem:64K", false)
	c, _ := open(t, o, "mem:64K:other", true)
	want := sectorOf(3)
	if err := blk.WriteSectors(e, a, want, 3, 0); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if err := blk.ReadSectors(e, b, got, 3); err != nil || string(got) != string(want) {
		t.Errorf("a reader of the same disk does not see what was written: %v", err)
	}
	if err := blk.ReadSectors(e, c, got, 3); err != nil || string(got) == string(want) {
		t.Errorf("another disk has it too: %v", err)
	}
	closeAll(t, a, b, c)
	d, _ := open(t, o, "mem:64K", true)
	if err := blk.ReadSectors(e, d, got, 3); err != nil || string(got) == string(want) {
		t.Errorf("the content outlives the last user: %v", err)
	}
	closeAll(t, d)
}

func sectorOf(n byte) []byte {
	p := make([]byte, blk.SectorSize)
	for i := range p {
		p[i] = n
	}
	return p
}

func TestReadersAndWritersOfAFile(t *testing.T) {
	e := env.Real()
	o := New(e)
	path := newFile(t, "a", 1<<20)
	r, _ := open(t, o, path, false)
	w, _ := open(t, o, path, true)
	if err := blk.WriteSectors(e, r, sectorOf(1), 0, 0); !errors.Is(err, blk.ReadOnly) {
		t.Errorf("a write through a read-only open: %v", err)
	}
	if err := blk.WriteSectors(e, w, sectorOf(1), 0, blk.FUA); err != nil {
		t.Error(err)
	}
	got := make([]byte, blk.SectorSize)
	if err := blk.ReadSectors(e, r, got, 0); err != nil || got[0] != 1 {
		t.Errorf("read %d, %v", got[0], err)
	}
	// The reader stays when the writer goes, and lets another process write.
	closeAll(t, w)
	other, err := filedev.Open(path, filedev.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := o.Open(path, true); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("a file that somebody else writes: %v", err)
	}
	r2, _ := open(t, o, path, false)
	closeAll(t, r, r2, other)
}

func TestGrownFile(t *testing.T) {
	o := New(env.Real())
	path := newFile(t, "a", 4096)
	a, _ := open(t, o, path, true)
	if err := os.Truncate(path, 8192); err != nil {
		t.Fatal(err)
	}
	b, _ := open(t, o, path, true)
	if n := a.Limits().Size; n != 16 {
		t.Errorf("%d sectors after a new open of a file that has grown to 16", n)
	}
	closeAll(t, a, b)
}

func TestRefusals(t *testing.T) {
	o := New(env.Real())
	dir := t.TempDir()
	for _, c := range []struct {
		name  string
		errno syscall.Errno
	}{
		{dir + "/nosuch", syscall.ENODEV},
		{dir, syscall.ENOTBLK},
		{"/dev/null", syscall.ENOTBLK},
		{"relative", syscall.ENODEV},
		{"", syscall.ENXIO},
		{"0:0", syscall.ENXIO},
		{"7:0", syscall.ENXIO},
		{"4294967296:0", syscall.ENODEV},
		{"1:2:3", syscall.ENODEV},
		{"direct:relative", syscall.EINVAL},
		{"direct:mem:1M", syscall.EINVAL},
		{"direct:" + dir, syscall.ENOTBLK},
		{"mem:", syscall.EINVAL},
		{"mem:0", syscall.EINVAL},
		{"mem:1000", syscall.EINVAL},
		{"mem:-512", syscall.EINVAL},
		{"mem:99999999T", syscall.EINVAL},
		{"null:1X", syscall.EINVAL},
		{"block=256:mem:1M", syscall.EINVAL},
		{"block=8192:mem:1M", syscall.EINVAL},
		{"block=1000:mem:1M", syscall.EINVAL},
		{"block=:mem:1M", syscall.EINVAL},
		{"block=4096", syscall.ENXIO},
		{"block=4096:7:0", syscall.ENODEV},
		{"block=4096:mem:1X", syscall.EINVAL},
	} {
		if _, _, err := o.Open(c.name, true); !errors.Is(err, c.errno) {
			t.Errorf("%q: %v, want %v", c.name, err, c.errno)
		}
	}
	if len(o.disks) != 0 || len(o.byNumber) != 0 {
		t.Errorf("refused opens leave %d disks", len(o.disks))
	}
}

// A disk with larger blocks takes whole ones only, and nobody opens it with others.
func TestBlocks(t *testing.T) {
	e := env.Real()
	o := New(e)
	for _, plain := range []string{newFile(t, "a", 1<<20+1024), "mem:1025K", "null:1025K:a"} {
		name := "block=4096:" + plain
		d, n := open(t, o, name, true)
		l := d.Limits()
		if l.LogicalBlock != 4096 || l.PhysicalBlock < 4096 || l.MinIO < 4096 || l.DiscardGranularity < 4096 || l.Size != 2048 {
			t.Errorf("%s: %+v", name, l)
		}
		for _, c := range []struct {
			sector, sectors uint64
			want            error
		}{{8, 8, nil}, {2040, 8, nil}, {1, 8, blk.Invalid}, {8, 4, blk.Invalid}, {2048, 8, blk.Invalid}} {
			if err := blk.WriteSectors(e, d, make([]byte, c.sectors*blk.SectorSize), c.sector, 0); !errors.Is(err, c.want) {
				t.Errorf("%s: write %d+%d: %v, want %v", name, c.sector, c.sectors, err, c.want)
			}
		}
		if o.Name(n) != name {
			t.Errorf("%s is called %s", name, o.Name(n))
		}
		for _, other := range []string{plain, "block=512:" + plain, "block=1024:" + plain} {
			if _, _, err := o.Open(other, false); !errors.Is(err, syscall.EBUSY) {
				t.Errorf("%s beside %s: %v", other, name, err)
			}
		}
		again, same := open(t, o, n.String(), false)
		if same != n || again.Limits().LogicalBlock != 4096 {
			t.Errorf("%v is %v with blocks of %d", n, same, again.Limits().LogicalBlock)
		}
		closeAll(t, d, again)
		d, _ = open(t, o, plain, true)
		d2, _ := open(t, o, "block=512:"+plain, true)
		if l := d.Limits(); l.LogicalBlock != 512 || l.Size != 2050 {
			t.Errorf("%s: %+v", plain, l)
		}
		closeAll(t, d, d2)
	}
	if len(o.disks) != 0 {
		t.Errorf("refused opens leave %d disks", len(o.disks))
	}
}

// A file is open through the page cache or past it, not both; either way it is the same
// disk.
func TestDirect(t *testing.T) {
	e, o := env.Real(), New(env.Real())
	path := newFile(t, "a", 1<<20)
	p := blktest.Pattern(8, 8, 1)
	names := []string{"direct:" + path, path, "direct:" + path}
	for i, name := range names[:2] {
		d, n := open(t, o, name, true)
		if i == 0 {
			if err := blk.WriteSectors(e, d, p, 8, 0); err != nil {
				t.Error(err)
			}
		}
		got := make([]byte, len(p))
		if err := blk.ReadSectors(e, d, got, 8); err != nil || !slices.Equal(got, p) {
			t.Errorf("%s has other data, %v", name, err)
		}
		if o.Name(n) != name || n != (blk.Number{Major: 7}) {
			t.Errorf("%s is %v, %s", name, n, o.Name(n))
		}
		for _, write := range []bool{false, true} {
			if _, _, err := o.Open(names[i+1], write); !errors.Is(err, syscall.EBUSY) {
				t.Errorf("%s beside %s: %v", names[i+1], name, err)
			}
		}
		reader, _ := open(t, o, name, false)
		closeAll(t, d, reader)
	}
}

// The allocation map of a disk with larger blocks is in whole blocks.
func TestExtentsInBlocks(t *testing.T) {
	hole := func(at, n uint64) blk.Extent { return blk.Extent{Sector: at, Sectors: n} }
	data := func(at, n uint64) blk.Extent { return blk.Extent{Sector: at, Sectors: n, Data: true} }
	for _, c := range []struct{ under, want []blk.Extent }{
		{[]blk.Extent{hole(0, 64)}, []blk.Extent{hole(0, 64)}},
		{[]blk.Extent{data(0, 9), hole(9, 55)}, []blk.Extent{data(0, 16), hole(16, 48)}},
		{[]blk.Extent{hole(0, 9), data(9, 1), hole(10, 54)}, []blk.Extent{hole(0, 8), data(8, 8), hole(16, 48)}},
		{[]blk.Extent{data(0, 9), hole(9, 6), data(15, 49)}, []blk.Extent{data(0, 64)}},
		{[]blk.Extent{data(0, 2), hole(2, 4), data(6, 58)}, []blk.Extent{data(0, 64)}},
	} {
		got, err := blocks{mapped{memdev.New(64), c.under}, 4096}.Extents(0, 64)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%v becomes %v, %v, want %v", c.under, got, err, c.want)
		}
	}
}

// mapped is a device with an allocation map.
type mapped struct {
	*memdev.Device
	list []blk.Extent
}

func (m mapped) Extents(uint64, uint64) ([]blk.Extent, error) { return m.list, nil }

func TestWrappersPassExtents(t *testing.T) {
	blktest.PassesExtents(t, func(d blk.Device) blk.Device { return withBlocks(d, 4096) })
	blktest.PassesExtents(t, func(d blk.Device) blk.Device {
		disk := &disk{opening: env.NewMutex(env.Real()), read: side{refs: 1, dev: d}}
		return &handle{Device: d, opener: New(env.Real()), disk: disk}
	})
}

// The package comment, which cannot be made from the list, has all of it.
func TestSchemesAreDocumented(t *testing.T) {
	p, err := os.ReadFile("leaf.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(Help()), "\n") {
		if !strings.Contains(string(p), "//\t"+strings.TrimSpace(line)+"\n") {
			t.Errorf("the package comment lacks %q", line)
		}
	}
	if want := "/PATH, direct:/PATH, mem:SIZE[:NAME], null:SIZE[:NAME], nbd:URI, rbd:POOL/IMAGE, qcow2:/PATH, https://…, archive:SNAP:STORE, part:N:… or block=BYTES:…"; Syntax() != want {
		t.Errorf("Syntax is %q, want %q", Syntax(), want)
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]uint64{"512": 1, "1K": 2, "1k": 2, "3M": 6144, "1G": 1 << 21, "2T": 1 << 32} {
		if got, err := ParseSize(s); got != want || err != nil {
			t.Errorf("%s: %d, %v", s, got, err)
		}
	}
}

// Opens and closes of one disk at the same time end with nothing open.
func TestConcurrentOpens(t *testing.T) {
	blktest.Leaks(t)
	o := New(env.Real())
	path := newFile(t, "a", 1<<20)
	var g sync.WaitGroup
	for i := range 8 {
		g.Go(func() {
			for range 50 {
				d, _, err := o.Open(path, i%2 == 0)
				if err != nil {
					t.Error(err)
					return
				}
				if err := blk.ReadSectors(env.Real(), d, make([]byte, 512), 0); err != nil {
					t.Error(err)
				}
				closeAll(t, d)
			}
		})
	}
	g.Wait()
	if len(o.disks) != 0 || len(o.byNumber) != 0 {
		t.Error("something is open still")
	}
}

// A disk of each kind passes the conformance suite behind the opener.
func TestConformance(t *testing.T) {
	for kind, name := range map[string]func(*testing.T) string{
		"file":   func(t *testing.T) string { return newFile(t, "a", 1<<20) },
		"direct": func(t *testing.T) string { return "direct:" + newFile(t, "a", 1<<20) },
		"mem":    func(*testing.T) string { return "mem:1M" },
		"4096":   func(*testing.T) string { return "block=4096:mem:1M" },
	} {
		t.Run(kind, func(t *testing.T) {
			blktest.TestDevice(t, func(t *testing.T) blk.Device {
				d, _ := open(t, New(env.Real()), name(t), true)
				return d
			})
		})
	}
}

// One connection serves readers and writers of a disk at a server, whatever its name.
func TestNBD(t *testing.T) {
	s, err := nbd.New(nbd.Config{Exports: nbd.Fixed{
		{Info: nbd.Info{Name: "disk"}, Device: export.Check(memdev.New(64))},
		{Info: nbd.Info{Name: "ro"}, Device: export.Check(memdev.New(64, memdev.Tune(func(l *blk.Limits) { l.ReadOnly = true })))},
	}})
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- s.Serve(l) }()
	e := env.Real()
	o := New(e)
	uri := "nbd+unix:///disk?connections=1&socket=" + socket
	a, an := open(t, o, uri, true)
	b, bn := open(t, o, "nbd:"+uri, false)
	if an != bn || an.Major != NBDMajor {
		t.Errorf("numbers %v and %v", an, bn)
	}
	if err := blk.WriteSectors(e, a, sectorOf(3), 3, 0); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 512)
	if err := blk.ReadSectors(e, b, got, 3); err != nil || string(got) != string(sectorOf(3)) {
		t.Errorf("a reader does not see it: %v", err)
	}
	if r, ok := blk.ReportOf(a); !ok || r.State != "connected" {
		t.Errorf("report %+v, %v", r, ok)
	}
	if r, ok := o.Report(an); !ok || r.State != "connected" {
		t.Errorf("by its number: %+v, %v", r, ok)
	}
	closeAll(t, a, b)
	ro := "nbd+unix:///ro?connections=1&socket=" + socket
	r, _ := open(t, o, ro, false)
	if _, _, err := o.Open(ro, true); !errors.Is(err, syscall.EACCES) {
		t.Errorf("a read-only export is opened for writing: %v", err)
	}
	closeAll(t, r)
	if r, ok := o.Report(an); ok {
		t.Errorf("a disk that is closed reports %+v", r)
	}
	s.Close()
	<-done
}

// Partitions of one disk are open together, and with the disk.
func TestPartitions(t *testing.T) {
	e := env.Real()
	path := filepath.Join(t.TempDir(), "disk")
	table := make([]byte, 512)
	for i := range 2 {
		p := table[446+16*i:]
		p[4], p[8], p[12] = 0x83, byte(8+8*i), 8
	}
	table[510], table[511] = 0x55, 0xaa
	if err := os.WriteFile(path, append(table, make([]byte, 64<<10)...), 0o600); err != nil {
		t.Fatal(err)
	}
	o := New(e)
	a, an := open(t, o, "part:1:"+path, true)
	b, bn := open(t, o, "part:2:"+path, true)
	disk, dn := open(t, o, path, false)
	if an == bn || an == dn || a.Limits().Size != 8 {
		t.Errorf("numbers %v, %v, %v, size %d", an, bn, dn, a.Limits().Size)
	}
	if err := blk.WriteSectors(e, b, sectorOf(3), 1, 0); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 512)
	if err := blk.ReadSectors(e, disk, got, 17); err != nil || string(got) != string(sectorOf(3)) {
		t.Errorf("it is not on the disk: %v", err)
	}
	for _, name := range []string{"part:3:" + path, "part:0:" + path, "part:x:" + path, "part:1:mem:64K"} {
		if _, _, err := o.Open(name, false); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%s: %v", name, err)
		}
	}
	closeAll(t, a, b, disk)
}

// A qcow2 image is opened as what is in it, and its file by its path as it is.
func TestQcow2(t *testing.T) {
	need.Tools(t, "qemu-img", "qemu-io")
	path := filepath.Join(t.TempDir(), "image")
	for _, args := range [][]string{
		{"qemu-img", "create", "-q", "-f", "qcow2", "-o", "compression_type=zstd", path, "1M"},
		{"qemu-io", "-f", "qcow2", "-c", "write -c -P 3 0 64k", path},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	e := env.Real()
	o := New(e)
	d, n := open(t, o, "qcow2:"+path, false)
	file, fn := open(t, o, path, false)
	if n == fn || d.Limits().Size != 2048 || !d.Limits().ReadOnly {
		t.Errorf("numbers %v and %v, %+v", n, fn, d.Limits())
	}
	got := make([]byte, 512)
	if err := blk.ReadSectors(e, d, got, 3); err != nil || string(got) != string(sectorOf(3)) {
		t.Error(err)
	}
	if x := blk.ExtentsOf(d, 0, 2048); len(x) != 2 || x[0].Sectors != 128 {
		t.Errorf("map %v", x)
	}
	for name, want := range map[string]error{"qcow2:" + path: syscall.EACCES, "qcow2:" + path + "x": syscall.ENODEV, "qcow2:image": syscall.EINVAL} {
		if _, _, err := o.Open(name, want == syscall.EACCES); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	closeAll(t, d, file)
}
