package leaf

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"udm/blk"
	"udm/blk/filedev"
)

// Handed is a disk that an Opener hands to another one, in this process or another: open
// files with their locks, and the number. A disk without a file is opened anew.
type Handed struct {
	Name        string
	Number      blk.Number
	Read, Write *os.File `json:"-"`
}

// Base names what an open disk stands on, itself or, for a partition, the disk that has it.
// Disks with the same base have the same lock.
func (o *Opener) Base(n blk.Number) string {
	o.mu.Lock()
	d := o.byNumber[n]
	o.mu.Unlock()
	if d == nil {
		return n.String()
	}
	return d.base
}

// base is the identity of the disk, or of the one that it is a partition of.
func (s *source) base() string {
	if disk, ok := diskOf(s.name); ok {
		if src, err := resolve(disk); err == nil {
			return src.base()
		}
	}
	return fmt.Sprintf("%+v", s.id)
}

// diskOf returns the name of the disk in that of a partition, or of one with larger blocks.
func diskOf(name string) (disk string, ok bool) {
	for _, prefix := range []string{"part:", "block="} {
		if rest, is := strings.CutPrefix(name, prefix); is {
			_, disk, ok = strings.Cut(rest, ":")
		}
	}
	return disk, ok
}

// Remote reports whether an open disk is not in files of this machine, so that what was not
// flushed may be lost when it is closed.
func (o *Opener) Remote(n blk.Number) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	d := o.byNumber[n]
	return d == nil || d.source.id.ino == 0 && d.source.id.dev == 0
}

// Hand returns what is open of the disks with some bases; nil: all. It stays open here, but
// its locks are now shared. The error names a disk whose content would be lost.
func (o *Opener) Hand(bases map[string]bool) (list []Handed, err error) {
	o.mu.Lock()
	disks := make([]*disk, 0, len(o.disks))
	for _, d := range o.disks {
		disks = append(disks, d)
	}
	o.mu.Unlock()
	if bases != nil {
		disks = slices.DeleteFunc(disks, func(d *disk) bool { return !bases[d.base] })
	}
	for _, d := range disks {
		h, err := d.hand()
		if err != nil {
			return nil, err
		}
		list = append(list, h)
	}
	return list, nil
}

// Movable returns an error if a disk that is open cannot be handed over.
func (o *Opener) Movable() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for id, d := range o.disks {
		if src, err := resolve(d.source.name); err != nil {
			return err
		} else if src.id != id {
			return fmt.Errorf("%s is another file now than the one that is open; move that back", d.source.name)
		}
		if strings.Contains(d.source.name, "mem:") {
			return fmt.Errorf("%s is in the memory of this process and ends with it; copy what you need first (udm cp), then remove the devices on it", d.source.name)
		}
	}
	return nil
}

func (d *disk) hand() (h Handed, err error) {
	d.opening.Lock()
	defer d.opening.Unlock()
	h = Handed{Name: d.source.name, Number: d.number}
	if f, ok := d.read.raw.(*filedev.Device); ok {
		if h.Read, err = f.Hand(); err != nil {
			return h, fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	if f, ok := d.write.raw.(*filedev.Device); ok {
		if h.Write, err = f.Hand(); err != nil {
			return h, fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	return h, nil
}

// Take makes the disks of another Opener those that are opened next. It may be called again
// for more of them, also for those that are open by now.
func (o *Opener) Take(list []Handed) error {
	for _, h := range list {
		src, err := resolve(h.Name)
		if err != nil {
			return err
		}
		o.mu.Lock()
		o.handed[src.id].close()
		o.handed[src.id] = h
		o.mu.Unlock()
	}
	return nil
}

// Taken ends Take: what was not opened is closed.
func (o *Opener) Taken() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for id, h := range o.handed {
		h.close()
		delete(o.handed, id)
	}
}

func (h Handed) close() {
	for _, f := range []*os.File{h.Read, h.Write} {
		if f != nil {
			f.Close()
		}
	}
}

// handedFile takes out the file that was handed over for a disk.
func (o *Opener) handedFile(id identity, write bool) (f *os.File) {
	o.mu.Lock()
	defer o.mu.Unlock()
	h := o.handed[id]
	if write {
		f, h.Write = h.Write, nil
	} else {
		f, h.Read = h.Read, nil
	}
	if f != nil {
		o.handed[id] = h
	}
	return f
}
