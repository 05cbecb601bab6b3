package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"udm/env/hostfs"
	"udm/volume"
)

// record is a device as it is saved.
type record struct {
	Minor          uint32 `json:"minor"`
	Name           string `json:"name"`
	UUID           string `json:"uuid,omitempty"`
	Live           *table `json:"live,omitempty"`
	Inactive       *table `json:"inactive,omitempty"`
	Suspended      bool   `json:"suspended,omitempty"`
	DeferredRemove bool   `json:"deferredRemove,omitempty"`
	// Volume is what the volume manager keeps with the device.
	Volume volume.Record `json:"volume,omitzero"`
}

// table is a saved table: its text, a line for each target.
type table struct {
	Text     []string `json:"text"`
	ReadOnly bool     `json:"readOnly,omitempty"`
	// Keyless: keys were left out, so that it cannot be loaded.
	Keyless bool `json:"keyless,omitempty"`
}

// store is a directory with a file for each device.
type store struct {
	fs  hostfs.FS
	dir string
}

func (s store) path(minor uint32) string {
	return filepath.Join(s.dir, strconv.FormatUint(uint64(minor), 10)+".json")
}

// prepare writes what the file of a device is to be, beside it.
func (s store) prepare(r *record) error { return hostfs.Prepare(s.fs, s.path(r.Minor), r) }

// discard drops what was prepared. It is no state, so a failure does no harm.
func (s store) discard(minor uint32) { _ = s.fs.Remove(s.path(minor) + ".new") }

// commit makes the file of a device what was prepared last; on return it is on the
// disk.
func (s store) commit(minor uint32) error { return hostfs.Commit(s.fs, s.path(minor)) }

// remove deletes the file of a device, if there is one.
func (s store) remove(minor uint32) error {
	err := s.fs.Remove(s.path(minor))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, s.fs.SyncDir(s.dir))
}

// read returns all records. What cannot be read is left where it is and told
// about in the error. A daemon that was killed may have left a file renamed or
// removed, but not on the disk: that is flushed first, since what is read now is
// what users will see.
func (s store) read() ([]*record, error) {
	if err := s.fs.SyncDir(s.dir); err != nil {
		return nil, err
	}
	names, err := s.fs.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var rs []*record
	for _, name := range names {
		if strings.HasSuffix(name, ".json") {
			r, rerr := s.readOne(name)
			if rerr != nil {
				err = errors.Join(err, rerr)
				continue
			}
			rs = append(rs, r)
		}
	}
	return rs, err
}

func (s store) readOne(name string) (*record, error) {
	path := filepath.Join(s.dir, name)
	text, err := s.fs.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(record)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if s.path(r.Minor) != path {
		return nil, fmt.Errorf("%s describes the device with minor number %d", path, r.Minor)
	}
	return r, nil
}
