package state

import (
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"syscall"

	"udm/dm"
	"udm/env/hostfs"
)

// Registrar is implemented by an [Opener] that can give disks fixed numbers: see
// leaf.Opener.
type Registrar interface {
	Register(name string, n dm.Number) error
	Unregister(n dm.Number) error
}

// Disk is a disk that has a number while it is registered.
type Disk struct {
	Major uint32 `json:"major"`
	Minor uint32 `json:"minor"`
	Path  string `json:"path"`
}

// disksFile is the file of the registered disks, in the root.
const disksFile = "disks.json"

func (s *State) disksPath() string { return filepath.Join(filepath.Dir(s.store.dir), disksFile) }

// Register registers a disk. It is saved on return.
func (s *State) Register(d Disk) error {
	r, ok := s.opener.(Registrar)
	if !ok {
		return dm.Errorf(syscall.ENOTSUP, "this service cannot register disks")
	}
	if d.Major == dm.Major {
		return dm.Errorf(syscall.EINVAL, "major %d is for mapped devices; choose another", dm.Major)
	}
	s.disksLock.Lock()
	defer s.disksLock.Unlock()
	if slices.Contains(s.disks, d) {
		return nil
	}
	if err := r.Register(d.Path, d.number()); err != nil {
		return err
	}
	if err := s.saveDisks(append(slices.Clone(s.disks), d)); err != nil {
		return errors.Join(err, r.Unregister(d.number()))
	}
	return nil
}

// Unregister undoes Register. ENXIO: no disk has that number.
func (s *State) Unregister(n dm.Number) error {
	s.disksLock.Lock()
	defer s.disksLock.Unlock()
	rest := slices.DeleteFunc(slices.Clone(s.disks), func(d Disk) bool { return d.number() == n })
	if len(rest) == len(s.disks) {
		return dm.Errorf(syscall.ENXIO, "no disk is registered as %s", n)
	}
	if err := s.saveDisks(rest); err != nil {
		return err
	}
	return s.opener.(Registrar).Unregister(n)
}

// Disks returns the registered disks in ascending order of numbers.
func (s *State) Disks() []Disk {
	s.disksLock.Lock()
	defer s.disksLock.Unlock()
	return slices.SortedFunc(slices.Values(s.disks), func(a, b Disk) int {
		return cmp.Or(cmp.Compare(a.Major, b.Major), cmp.Compare(a.Minor, b.Minor))
	})
}

func (d Disk) number() dm.Number { return dm.Number{Major: d.Major, Minor: d.Minor} }

// saveDisks saves a list of disks and puts it in force.
func (s *State) saveDisks(disks []Disk) error {
	if err := hostfs.Replace(s.store.fs, s.disksPath(), disks); err != nil {
		return err
	}
	s.disks = disks
	return nil
}

// restoreDisks registers the saved disks. The error names disks that cannot get their
// numbers; they stay saved.
func (s *State) restoreDisks() error {
	s.disksLock.Lock()
	defer s.disksLock.Unlock()
	text, err := s.store.fs.ReadFile(s.disksPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var disks []Disk
	if err == nil {
		err = json.Unmarshal(text, &disks)
	}
	r, ok := s.opener.(Registrar)
	if !ok || err != nil {
		return err
	}
	s.disks = disks
	for _, d := range disks {
		err = errors.Join(err, r.Register(d.Path, d.number()))
	}
	return err
}
