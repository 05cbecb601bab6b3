package thinmeta

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/env"
	"udm/pdata"
)

// pool is metadata with a model beside it.
type pool struct {
	t   *testing.T
	dev *memdev.Device
	m   *Metadata
	o   Options
	via func(blk.Device) blk.Device // what lies between m and dev; may be nil

	now, old state // the model of the running and of the committed transaction
}

// state is what a pool should hold: the mappings of each device.
type state struct {
	devs map[uint32]map[uint64]uint64
	size uint64 // data blocks
	held map[uint32]map[uint64]uint64
}

func (s state) clone() state {
	c := state{map[uint32]map[uint64]uint64{}, s.size, s.held}
	for id, m := range s.devs {
		c.devs[id] = maps.Clone(m)
	}
	return c
}

const testBlockSize = 128

func newDisk(blocks uint64) *memdev.Device {
	return memdev.New(blocks*pdata.BlockSectors, memdev.Volatile)
}

func newPool(t *testing.T, blocks, data uint64, cache int) *pool {
	t.Helper()
	p := &pool{t: t, dev: newDisk(blocks), o: Options{DataBlockSize: testBlockSize, Format: true, CacheBytes: cache}}
	p.now = state{devs: map[uint32]map[uint64]uint64{}}
	p.open()
	p.old = p.now.clone()
	if err := p.m.ResizeData(data); err != nil {
		t.Fatal(err)
	}
	p.now.size = data
	p.commit()
	t.Cleanup(p.check)
	return p
}

func (p *pool) open() {
	p.t.Helper()
	var dev blk.Device = p.dev
	if p.via != nil {
		dev = p.via(dev)
	}
	m, err := Open(env.Real(), dev, p.o)
	if err != nil {
		p.t.Fatal(err)
	}
	p.m = m
}

func (p *pool) commit() {
	p.t.Helper()
	if err := p.m.Commit(); err != nil {
		p.t.Fatal(err)
	}
	p.old = p.now.clone()
	if *checkEach {
		tool(p.t, p.dev, "thin_check")
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// check commits and looks at the whole state.
func (p *pool) check() {
	p.t.Helper()
	if p.m.Failed() || p.m.broken != nil {
		return
	}
	p.commit()
	verify(p.t, p.dev, p.now)
}

// verify checks what is on a disk against a model.
func verify(t *testing.T, dev blk.Device, want state) {
	t.Helper()
	ok(t, matches(dev, want))
}

func matches(dev blk.Device, want state) error {
	r, err := Check(env.Real(), dev, CheckOptions{CacheBytes: 1 << 20})
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		return err
	}
	if !maps.EqualFunc(r.Devices, want.devs, func(d Details, m map[uint64]uint64) bool { return d.Mapped == uint64(len(m)) }) {
		return fmt.Errorf("devices are %v, want %d", r.Devices, len(want.devs))
	}
	m, err := Open(env.Real(), dev, Options{ReadOnly: true, CacheBytes: 1 << 20})
	if err != nil {
		return err
	}
	for id, want := range want.devs {
		if got, err := mappings(m, id); err != nil || !maps.Equal(got, want) {
			return fmt.Errorf("device %d has %d mappings, want %d, or others: %v", id, len(got), len(want), err)
		}
	}
	return nil
}

func mappings(m *Metadata, id uint32) (map[uint64]uint64, error) {
	th, err := m.OpenThin(id)
	if err != nil {
		return nil, err
	}
	defer th.Close()
	got := map[uint64]uint64{}
	for at := uint64(0); ; {
		r, err := th.FindRange(at, 1<<62)
		if err == syscall.ENODATA {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		for b := r.ThinBegin; b < r.ThinEnd; b++ {
			got[b] = r.DataBegin + b - r.ThinBegin
		}
		at = r.ThinEnd
	}
}

// tool runs a program of thin-provisioning-tools on the content of a disk and
// fails the test unless it exits with 0. Where it is not installed that is said,
// and our own Check has to do.
func tool(t *testing.T, dev blk.Device, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("/usr/sbin/" + name)
	if err != nil {
		t.Logf("%s is not installed: only checked by ourselves", name)
		r, err := Check(env.Real(), dev, CheckOptions{})
		ok(t, err)
		ok(t, r.Err())
		return ""
	}
	file := filepath.Join(t.TempDir(), "metadata")
	export(t, dev, file)
	defer os.Remove(file) // there may be thousands in one test
	out, err := exec.Command(path, append(args, file)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func thinCheck(file string) ([]byte, error) {
	path, err := exec.LookPath("/usr/sbin/thin_check")
	if err != nil {
		return nil, nil
	}
	return exec.Command(path, file).CombinedOutput()
}

func export(t *testing.T, dev blk.Device, file string) {
	t.Helper()
	p := make([]byte, dev.Limits().Size*blk.SectorSize)
	ok(t, blk.ReadSectors(env.Real(), dev, p, 0))
	ok(t, os.WriteFile(file, p, 0o600))
}

func (p *pool) insert(t *Thin, block uint64) error {
	b, err := p.m.AllocDataBlock()
	if err != nil {
		return err
	}
	if err := t.Insert(block, b); err != nil {
		return err
	}
	p.now.devs[t.id][block] = b
	return nil
}

func (p *pool) thin(id uint32) *Thin {
	p.t.Helper()
	th, err := p.m.OpenThin(id)
	ok(p.t, err)
	return th
}

func (p *pool) createThin(id uint32) {
	p.t.Helper()
	ok(p.t, p.m.CreateThin(id))
	p.now.devs[id] = map[uint64]uint64{}
}

func (p *pool) createSnap(id, origin uint32) {
	p.t.Helper()
	ok(p.t, p.m.CreateSnap(id, origin))
	p.now.devs[id] = maps.Clone(p.now.devs[origin])
}

func (p *pool) delete(id uint32) {
	p.t.Helper()
	ok(p.t, p.m.DeleteThin(id))
	delete(p.now.devs, id)
}
