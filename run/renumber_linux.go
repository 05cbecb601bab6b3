//go:build linux && (amd64 || arm64)

package run

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"

	"udm/blk"
	"udm/ctl"
	"udm/dm"
)

// renumbered is a service whose mapped devices have another major number: the daemon's
// own may be that of other block devices of this machine, which programs would confuse.
// Tables are translated where they name devices that they use.
type renumbered struct {
	ctl.Service
	major uint32
}

func renumber(s ctl.Service, major uint32) ctl.Service {
	if major == dm.Major {
		return s
	}
	return renumbered{s, major}
}

// freeMajor is the daemon's major number, or the next lower one that the machine does
// not use.
func freeMajor() uint32 {
	used := blockMajors("/proc/devices")
	for major := uint32(dm.Major); major > 200; major-- {
		if !used[major] {
			return major
		}
	}
	return dm.Major
}

// blockMajors are the major numbers of block devices in /proc/devices, but those of the
// kernel's own device mapper.
func blockMajors(path string) map[uint32]bool {
	used := make(map[uint32]bool)
	f, err := os.Open(path)
	if err != nil {
		return used
	}
	defer f.Close()
	block := false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var major uint32
		if _, err := fmt.Sscan(lines.Text(), &major); err == nil && block {
			used[major] = true
		}
		block = block || strings.HasPrefix(lines.Text(), "Block")
	}
	return used
}

// inner and outer translate one number, exchanging the two major numbers.
func (r renumbered) inner(n ctl.Number) ctl.Number {
	switch n.Major {
	case r.major:
		n.Major = dm.Major
	case dm.Major:
		n.Major = r.major
	}
	return n
}

func (r renumbered) outer(n ctl.Number) ctl.Number { return r.inner(n) }

func (r renumbered) ref(ref ctl.Ref) ctl.Ref {
	if ref.Number != nil {
		n := r.inner(*ref.Number)
		ref.Number = &n
	}
	return ref
}

// words translates the words of a text that are numbers for which ok holds.
func (r renumbered) words(text string, ok func(ctl.Number) bool) string {
	words := strings.Split(text, " ")
	for i, w := range words {
		if n, is := blk.ParseNumber(w); is && n.String() == w && ok(ctl.Number(n)) {
			words[i] = r.inner(ctl.Number(n)).String()
		}
	}
	return strings.Join(words, " ")
}

func (r renumbered) device(d ctl.Device, err error) (ctl.Device, error) {
	d.Number = r.outer(d.Number)
	deps := make(map[ctl.Number]bool)
	for i, dep := range d.Deps {
		deps[dep.Number] = true
		d.Deps[i].Number = r.outer(dep.Number)
	}
	for _, lines := range [][]ctl.Line{d.Table, d.Status} {
		for i, l := range lines {
			lines[i].Params = r.words(l.Params, func(n ctl.Number) bool { return deps[n] })
		}
	}
	return d, err
}

// Device asks for the dependencies as well, which say what of a table is a number.
func (r renumbered) Device(ctx context.Context, q ctl.Query) (ctl.Device, error) {
	q.Ref = r.ref(q.Ref)
	if len(q.With) > 0 {
		q.With = append(q.With[:len(q.With):len(q.With)], ctl.WithDeps)
	}
	return r.device(r.Service.Device(ctx, q))
}

// List translates like Device.
func (r renumbered) List(ctx context.Context, q ctl.Query) ([]ctl.Device, error) {
	if len(q.With) > 0 {
		q.With = append(q.With[:len(q.With):len(q.With)], ctl.WithDeps)
	}
	list, err := r.Service.List(ctx, q)
	for i := range list {
		list[i], _ = r.device(list[i], nil)
	}
	return list, err
}

// Create implements [ctl.Service].
func (r renumbered) Create(ctx context.Context, c ctl.Create) (ctl.Device, error) {
	return r.device(r.Service.Create(ctx, c))
}

// Load translates every word of the table that looks like the number of a mapped device.
func (r renumbered) Load(ctx context.Context, l ctl.Load) (ctl.Device, error) {
	l.Ref = r.ref(l.Ref)
	lines := strings.Split(l.Table, "\n")
	for i := range lines {
		lines[i] = r.words(lines[i], func(n ctl.Number) bool { return n.Major == r.major || n.Major == dm.Major })
	}
	l.Table = strings.Join(lines, "\n")
	return r.device(r.Service.Load(ctx, l))
}

// Clear implements [ctl.Service].
func (r renumbered) Clear(ctx context.Context, ref ctl.Ref) (ctl.Device, error) {
	return r.device(r.Service.Clear(ctx, r.ref(ref)))
}

// Suspend implements [ctl.Service].
func (r renumbered) Suspend(ctx context.Context, s ctl.Suspend) (ctl.Device, error) {
	s.Ref = r.ref(s.Ref)
	return r.device(r.Service.Suspend(ctx, s))
}

// Resume implements [ctl.Service].
func (r renumbered) Resume(ctx context.Context, s ctl.Suspend) (ctl.Device, error) {
	s.Ref = r.ref(s.Ref)
	return r.device(r.Service.Resume(ctx, s))
}

// Remove implements [ctl.Service].
func (r renumbered) Remove(ctx context.Context, m ctl.Remove) error {
	m.Ref = r.ref(m.Ref)
	return r.Service.Remove(ctx, m)
}

// Rename implements [ctl.Service].
func (r renumbered) Rename(ctx context.Context, n ctl.Rename) (ctl.Device, error) {
	n.Ref = r.ref(n.Ref)
	return r.device(r.Service.Rename(ctx, n))
}

// Message implements [ctl.Service].
func (r renumbered) Message(ctx context.Context, m ctl.Message) (string, error) {
	m.Ref = r.ref(m.Ref)
	return r.Service.Message(ctx, m)
}

// Wait implements [ctl.Service].
func (r renumbered) Wait(ctx context.Context, w ctl.Wait) (ctl.Device, error) {
	w.Ref = r.ref(w.Ref)
	return r.device(r.Service.Wait(ctx, w))
}
