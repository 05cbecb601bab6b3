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

// record is the saved state of a device.
type record struct {
	Minor          uint32 `json:"minor"`
	Name           string `json:"name"`
	UUID           string `json:"uuid,omitempty"`
	Live           *table `json:"live,omitempty"`
	Inactive       *table `json:"inactive,omitempty"`
	Suspended      bool   `json:"suspended,omitempty"`
	DeferredRemove bool   `json:"deferredRemove,omitempty"`
	// Volume is the volume manager's record of the device.
	Volume volume.Record `json:"volume,omitzero"`
	Limit  Limit         `json:"limit,omitzero"`
}

// table is a saved table: its text, one line for each target.
type table struct {
	Text     []string `json:"text"`
	ReadOnly bool     `json:"readOnly,omitempty"`
	// Keyless: keys were left out, so the table cannot be loaded.
	Keyless bool `json:"keyless,omitempty"`

	keyed []string // the text with its keys, if the process before handed them over
}

// store is a directory with a file for each device.
type store struct {
	fs  hostfs.FS
	dir string
}

func (s store) path(minor uint32) string {
	return filepath.Join(s.dir, strconv.FormatUint(uint64(minor), 10)+".json")
}

// prepare writes the new content of devices' files beside them.
func (s store) prepare(rs []*record) error {
	paths := make([]string, len(rs))
	for i, r := range rs {
		paths[i] = s.path(r.Minor)
	}
	return hostfs.PrepareAll(s.fs, paths, rs)
}

// discard drops prepared content, which is no harm if it stays.
func (s store) discard(minor uint32) { _ = s.fs.Remove(s.path(minor) + ".new") }

// commit makes the prepared contents those of the files. They are on disk on return.
func (s store) commit(rs []*record) error {
	paths := make([]string, len(rs))
	for i, r := range rs {
		paths[i] = s.path(r.Minor)
	}
	return hostfs.CommitAll(s.fs, paths)
}

// remove deletes the files of devices, where there are any.
func (s store) remove(minors []uint32) error {
	for _, minor := range minors {
		if err := s.fs.Remove(s.path(minor)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return s.fs.SyncDir(s.dir)
}

// read returns all records. Files that cannot be read are left alone and named in the
// error. A killed daemon may have left a rename or removal that is not on disk; read
// flushes it first, because users will see what is read now.
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
		return nil, fmt.Errorf("%s describes a device with another minor number, %d", path, r.Minor)
	}
	return r, nil
}
