package csi

import (
	"encoding/json"
	"fmt"
	"time"

	"udm/volume"
)

// recordLabel is the label of a volume that says what it is for the driver.
const recordLabel = "csi"

// The kinds of records.
const (
	isVolume   = "volume"
	isSnapshot = "snapshot"
	isFrom     = "received" // a snapshot from another node, to be cloned
)

// record is all that there is to know about a volume or a snapshot.
type record struct {
	Kind    string    `json:"kind"`
	Name    string    `json:"name"` // as the call gave it
	Created time.Time `json:"created"`

	// Of a volume.
	Bytes     int64           `json:"bytes,omitempty"`     // the size that was asked for
	Source    string          `json:"source,omitempty"`    // id of what it was made from
	Published map[string]bool `json:"published,omitempty"` // by node: whether for reading only
	Ephemeral bool            `json:"ephemeral,omitempty"` // it goes when it is unpublished
	Frozen    bool            `json:"frozen,omitempty"`    // its file system may be frozen

	// Of a snapshot.
	Of    string   `json:"of,omitempty"`    // id of the volume
	Group string   `json:"group,omitempty"` // id of its group
	All   []string `json:"all,omitempty"`   // ids of the volumes of the group
}

// recordOf reads the record of an object; nil: it has none.
func recordOf(o volume.Object) (*record, error) {
	text := o.Labels[recordLabel]
	if text == "" {
		return nil, nil
	}
	r := new(record)
	if err := json.Unmarshal([]byte(text), r); err != nil {
		return nil, fmt.Errorf("the label %s of %s cannot be read: %w", recordLabel, o.Name, err)
	}
	return r, nil
}

func (r *record) label() map[string]string {
	text, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings, numbers and times
	}
	return map[string]string{recordLabel: string(text)}
}
