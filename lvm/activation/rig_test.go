package activation

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/leaf"
	"udm/ctl"
	"udm/ctl/server/service"
	"udm/env"
	"udm/lvm"
	"udm/lvm/golden"
	"udm/targets/all"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rig is a daemon without its sockets, and the disks of a part.
type rig struct {
	*testing.T
	*service.Service
	root  string
	disks []string
}

func newRig(t *testing.T, part string) *rig {
	t.Helper()
	r := &rig{T: t, root: t.TempDir()}
	var err error
	r.disks, err = golden.Write(t.TempDir(), part)
	must(t, err)
	r.start()
	t.Cleanup(func() { must(t, r.Close()) })
	return r
}

func (r *rig) start() {
	r.Helper()
	var err error
	r.Service, err = service.New(service.Config{Root: r.root, Types: all.Types()})
	must(r.T, err)
	must(r.T, r.Restore(context.Background()))
}

func (r *rig) restart() {
	r.Helper()
	must(r.T, r.Close())
	r.start()
}

// scan finds a group on disks while f runs.
func (r *rig) scan(disks []string, group string, f func(*lvm.Assembled)) {
	r.Helper()
	opener := leaf.New(env.Real())
	var found []lvm.Disk
	for _, name := range disks {
		d, _, err := opener.Open(name, false)
		must(r.T, err)
		defer d.Close()
		found = append(found, lvm.Disk{Name: name, Device: d})
	}
	for _, g := range lvm.Scan(env.Real(), found).Groups {
		if g.Name == group {
			f(g)
			return
		}
	}
	r.Fatalf("there is no group %s", group)
}

// try activates a group from all disks by way of a service.
func (r *rig) try(s ctl.Service, group string, o Options) (report *Report, err error) {
	r.Helper()
	r.scan(r.disks, group, func(g *lvm.Assembled) { report, err = Activate(r.Context(), s, g, o) })
	return report, err
}

func (r *rig) activate(group string, o Options) *Report {
	r.Helper()
	report, err := r.try(r.Service, group, o)
	must(r.T, err)
	return report
}

func (r *rig) deactivate(group, volume string) []string {
	r.Helper()
	removed, err := Deactivate(r.Context(), r.Service, group, volume)
	must(r.T, err)
	return removed
}

// wants fails unless err matches.
func (r *rig) wants(err error, text string) {
	r.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		r.Errorf("got %v, want %q", err, text)
	}
}

// devices are the names of all devices.
func (r *rig) devices() (names []string) {
	r.Helper()
	ds, err := r.List(r.Context(), ctl.Query{})
	must(r.T, err)
	for _, d := range ds {
		names = append(names, d.Name)
	}
	return names
}

// nothing fails unless there are no devices, and no stores of clones.
func (r *rig) nothing() {
	r.Helper()
	stores, err := os.ReadDir(filepath.Join(r.root, "stores"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.Fatal(err)
	}
	if ds := r.devices(); len(ds) > 0 || len(stores) > 0 {
		r.Fatalf("there are still %v, and stores %v", ds, stores)
	}
}

// sum is the checksum of the first 4 MiB of a device.
func (r *rig) sum(name string) (string, error) {
	d, err := r.Open(ctl.Ref{Name: name}, false)
	if err != nil {
		return "", err
	}
	defer d.Close()
	p := make([]byte, min(d.Limits().Size*blk.SectorSize, 4<<20))
	err = blk.ReadSectors(env.Real(), d, p, 0)
	h := sha256.Sum256(p)
	return hex.EncodeToString(h[:]), err
}

// disksSum is the checksum of all disks.
func (r *rig) disksSum() string {
	r.Helper()
	h := sha256.New()
	for _, name := range r.disks {
		b, err := os.ReadFile(name)
		must(r.T, err)
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// visible are the devices of a report that users open.
func visible(report *Report) (names []string) {
	for _, d := range report.Devices {
		if !d.Hidden {
			names = append(names, d.Name)
		}
	}
	return names
}

// write writes a sector at the beginning of a device.
func (r *rig) write(name string, value byte) error {
	d, err := r.Open(ctl.Ref{Name: name}, true)
	if err != nil {
		return err
	}
	return errors.Join(blk.WriteSectors(env.Real(), d, slices.Repeat([]byte{value}, blk.SectorSize), 0, blk.FUA), d.Close())
}

// change changes the group's text on the first disk that has it, as its next commit.
func (r *rig) change(group string, edit func(string) string) {
	r.Helper()
	r.scan(r.disks, group, func(g *lvm.Assembled) {
		for _, d := range g.Disks {
			for _, a := range d.Areas {
				if a.Text != nil {
					r.commit(d.Name, a, edit(a.Text.Section.String()))
				}
			}
		}
	})
}

func (r *rig) commit(disk string, a *lvm.Area, text string) {
	r.Helper()
	const begin = 0xf597a6cf
	sum := func(b []byte) uint32 { return ^crc32.Update(^uint32(begin), crc32.IEEETable, b) }
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	must(r.T, err)
	defer f.Close()
	b := append([]byte(text), 0)
	_, err = f.WriteAt(b, int64(a.Offset)+512)
	must(r.T, err)
	h := make([]byte, 512)
	_, err = f.ReadAt(h, int64(a.Offset))
	must(r.T, err)
	le := binary.LittleEndian
	le.PutUint64(h[40:], 512)
	le.PutUint64(h[48:], uint64(len(b)))
	le.PutUint32(h[56:], sum(b))
	le.PutUint32(h, sum(h[4:]))
	_, err = f.WriteAt(h, int64(a.Offset))
	must(r.T, err)
}
