package snapshotter

import (
	"encoding/json"
	"maps"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"

	"udm/volume"
)

// recordLabel is the label of a volume that says which snapshot it is.
const recordLabel = "containerd.snapshot"

// record is all that there is to know about a snapshot. It is a label of its volume, so
// that volume and snapshot come, change and go together: the daemon saves both at once,
// and no crash can make them disagree.
type record struct {
	Key     string            `json:"key"`
	Parent  string            `json:"parent,omitempty"`
	Kind    string            `json:"kind"`
	Created time.Time         `json:"created"`
	Updated time.Time         `json:"updated"`
	Labels  map[string]string `json:"labels,omitempty"`
	Offer   Offer             `json:"offer"`
	FS      string            `json:"fs"`
	Image   string            `json:"image,omitempty"` // what it is a clone of, if it has no parent
	// Bytes is the usage of a committed snapshot, from the moment when it was.
	Bytes int64 `json:"bytes,omitempty"`
	// Gone: it is removed for containerd, and its volume will be as soon as nobody has
	// it open any more.
	Gone bool `json:"gone,omitempty"`

	volume string // its name
	state  state  // guarded by index.mu
}

// state is what calls are doing to a snapshot.
type state int

const (
	atRest   state = iota
	making         // it does not count yet, but its key is taken
	changing       // or being removed
)

// recordOf reads the record of a volume; nil: it has none.
func recordOf(o volume.Object) (*record, error) {
	text := o.Labels[recordLabel]
	if text == "" {
		return nil, nil
	}
	r := &record{volume: o.Name}
	return r, json.Unmarshal([]byte(text), r)
}

// label is the record as a label.
func (r *record) label() map[string]string {
	text, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings, times and numbers
	}
	return map[string]string{recordLabel: string(text)}
}

func (r *record) kind() snapshots.Kind { return snapshots.ParseKind(r.Kind) }

func (r *record) info() snapshots.Info {
	return snapshots.Info{Name: r.Key, Parent: r.Parent, Kind: r.kind(), Created: r.Created, Updated: r.Updated, Labels: maps.Clone(r.Labels)}
}

// field returns a field of a snapshot for containerd's filters.
func field(i snapshots.Info, path []string) (string, bool) {
	if len(path) == 0 {
		return "", false
	}
	switch path[0] {
	case "kind":
		return strings.ToLower(i.Kind.String()), true
	case "name":
		return i.Name, i.Name != ""
	case "parent":
		return i.Parent, i.Parent != ""
	case "labels":
		value, ok := i.Labels[strings.Join(path[1:], ".")]
		return value, ok
	}
	return "", false
}
