package state

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"path/filepath"

	"udm/dm"
	"udm/env/hostfs"
)

// Rate is as in package ctl.
type Rate struct {
	IOPS       uint64 `json:"iops,omitempty"`
	IOPSBurst  uint64 `json:"iopsBurst,omitempty"`
	Bytes      uint64 `json:"bytes,omitempty"`
	BytesBurst uint64 `json:"bytesBurst,omitempty"`
}

// Limit is what a device may do, or a group. That of a device is in its file.
type Limit struct {
	Group string `json:"group,omitempty"` // that the device belongs to
	Read  Rate   `json:"read,omitzero"`
	Write Rate   `json:"write,omitzero"`
}

// Limit is the limit of a device.
func (s *State) Limit(d *dm.Device) Limit {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.entryLocked(d).limit
}

// SetLimit changes it. Save follows.
func (s *State) SetLimit(d *dm.Device, l Limit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entryLocked(d).limit = l
}

// Groups are the limits of groups by their names.
func (s *State) Groups() map[string]Limit {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.groups == nil {
		return make(map[string]Limit)
	}
	return maps.Clone(s.groups)
}

// groupsPath is the file of the groups, in the root. It is replaced as a whole.
func (s *State) groupsPath() string { return filepath.Join(filepath.Dir(s.store.dir), "limits.json") }

// SaveGroups saves the limits of groups.
func (s *State) SaveGroups(groups map[string]Limit) error {
	if err := hostfs.Replace(s.store.fs, s.groupsPath(), groups); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.groups = groups
	return nil
}

// RestoreGroups reads what was saved.
func (s *State) RestoreGroups() (map[string]Limit, error) {
	text, err := s.store.fs.ReadFile(s.groupsPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	groups := make(map[string]Limit)
	if err == nil {
		err = json.Unmarshal(text, &groups)
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.groups = groups
	return maps.Clone(groups), nil
}
