//go:build linux && (amd64 || arm64)

package run

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"udm/blk"
	"udm/ctl"
)

// fake is a service with one device; it keeps what it was asked last.
type fake struct {
	ctl.Service
	device ctl.Device
	load   ctl.Load
	query  ctl.Query
	err    error // of List
}

func (f *fake) List(context.Context, ctl.Query) ([]ctl.Device, error) {
	return []ctl.Device{f.device}, f.err
}

func (f *fake) Device(_ context.Context, q ctl.Query) (ctl.Device, error) {
	f.query = q
	return f.device, nil
}

func (f *fake) Load(_ context.Context, l ctl.Load) (ctl.Device, error) {
	f.load = l
	return f.device, nil
}

// Numbers of mapped devices are translated both ways, and nothing else that looks alike.
func TestRenumbered(t *testing.T) {
	f := &fake{device: ctl.Device{Number: ctl.Number{Major: 254, Minor: 3}}}
	f.device.Table = []ctl.Line{{Params: "2 128 254:1 0 7:0 0 254:9 x254:1"}}
	f.device.Deps = []ctl.Dep{{Number: ctl.Number{Major: 254, Minor: 1}}, {Number: ctl.Number{Major: 7, Minor: 0}}}
	s := renumber(f, 252)
	n := ctl.Number{Major: 252, Minor: 3}
	d, err := s.Device(t.Context(), ctl.Query{Ref: ctl.Ref{Number: &n}, With: []ctl.With{ctl.WithTable}})
	if err != nil || *f.query.Number != (ctl.Number{Major: 254, Minor: 3}) {
		t.Errorf("asked for %v, %v", f.query.Number, err)
	}
	if d.Number != n || d.Table[0].Params != "2 128 252:1 0 7:0 0 254:9 x254:1" || d.Deps[0].Number.Major != 252 {
		t.Errorf("%+v", d)
	}
	_, err = s.Load(t.Context(), ctl.Load{Ref: ctl.Ref{Name: "x"}, Table: "0 8 linear 252:1 0\n8 8 linear 7:252 0"})
	if want := "0 8 linear 254:1 0\n8 8 linear 7:252 0"; err != nil || f.load.Table != want {
		t.Errorf("loaded %q, %v", f.load.Table, err)
	}
	if renumber(f, 254) != ctl.Service(f) {
		t.Error("the daemon's own number is translated")
	}
}

// Devices that were known stay known while the daemon cannot be asked.
func TestDaemonCannotBeAsked(t *testing.T) {
	f := &fake{device: ctl.Device{Number: ctl.Number{Major: 254, Minor: 3}, Disk: true}}
	d := &devices{service: f}
	if _, ok := d.number(blk.Number{Major: 254, Minor: 3}); !ok {
		t.Fatal("the device is unknown")
	}
	d.stale()
	f.err = errors.New("connection reset")
	if _, ok := d.number(blk.Number{Major: 254, Minor: 3}); !ok {
		t.Error("the device is gone after an error")
	}
	f.err, f.device.Minor = nil, 4
	if _, ok := d.number(blk.Number{Major: 254, Minor: 4}); !ok {
		t.Error("the list is not read again after an error")
	}
}

func TestBlockMajors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "devices")
	text := "Character devices:\n  1 mem\n254 gpiochip\n\nBlock devices:\n  7 loop\n253 zram\n259 blkext\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, want := blockMajors(path), map[uint32]bool{7: true, 253: true, 259: true}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestParseStat(t *testing.T) {
	for text, want := range map[string][2]int{
		"12 (sh) S 7 12 12":          {12, 7},
		"13 (a) S 99 (b c)) Z 8 1 1": {13, 8},
	} {
		pid, parent, err := parseStat(text)
		if err != nil || pid != want[0] || parent != want[1] {
			t.Errorf("%q: %d, %d, %v", text, pid, parent, err)
		}
	}
	if _, _, err := parseStat("nonsense"); err == nil {
		t.Error("nonsense is parsed")
	}
}
