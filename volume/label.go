package volume

import (
	"context"
	"maps"
	"syscall"
)

// LabelSpec is a request to change the labels of an object.
type LabelSpec struct {
	Name string `json:"name"`
	// Labels are set, or removed where the value is empty. Others stay.
	Labels map[string]string `json:"labels"`
}

// mostLabels bounds the labels of an object: the bytes of all names and values.
const mostLabels = 64 << 10

var errLabels = refuse(syscall.E2BIG, "the labels of an object have %d bytes at most", mostLabels)

func valid(labels map[string]string) bool {
	size := 0
	for name, value := range labels {
		size += len(name) + len(value)
	}
	return size <= mostLabels
}

// Label changes labels of an object, all at one moment. Labels mean nothing to the
// manager: programs above it keep with an object what they know of it, so that the
// two cannot disagree. Most requests that make an object take labels for it. They stay
// when the object is renamed, resized, merged or moved.
func (m *Manager) Label(ctx context.Context, s LabelSpec) error {
	return m.beside(ctx, claim{objects: []string{s.Name}}, func() error {
		o, err := m.object(s.Name)
		if err == nil {
			err = m.whole(o)
		}
		if err != nil {
			return err
		}
		now := maps.Clone(o.record.Labels)
		if now == nil {
			now = make(map[string]string)
		}
		maps.Copy(now, s.Labels)
		maps.DeleteFunc(now, func(_, value string) bool { return value == "" })
		if !valid(now) {
			return errLabels
		}
		o.record.Labels = now
		return m.devices.Note(s.Name, o.record)
	})
}
