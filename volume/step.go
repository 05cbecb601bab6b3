package volume

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// step is a part of an operation. It is data: it is written to the journal and done,
// or undone, by whoever reads it there. Both work from any state that a crash or an
// error in either has left.
type step interface {
	// kind is the step's name in the journal.
	kind() string
	do(ctx context.Context, m *Manager, op *operation) error
	// undo undoes what do has made, and nothing that others made. Only steps that add
	// something need it: see final.
	undo(ctx context.Context, m *Manager, op *operation) error
}

// settler is a step that leaves marks until its operation is complete.
type settler interface {
	settle(m *Manager, op *operation) error
}

// final is embedded in steps that only come after the point of no return.
type final struct{}

func (final) undo(context.Context, *Manager, *operation) error { return nil }

// notYet is the error of a step that is in progress and must be done again after a
// while.
type notYet struct {
	after       time.Duration
	done, total uint64
}

func (e *notYet) Error() string { return fmt.Sprintf("%d of %d bytes are done", e.done, e.total) }

// steps is a list of steps. In JSON each is an object with its kind and its
// parameters.
type steps []step

type stepText struct {
	Do   string          `json:"do"`
	With json.RawMessage `json:"with"`
}

// stepOf returns an empty step of a kind, or nil if the kind is unknown.
func stepOf(kind string) step {
	for _, s := range []step{
		new(makeFiles), new(linkFiles), new(growFile), new(removeFiles),
		new(createDevices), new(swapTables), new(removeDevice), new(renameDevice),
		new(createVolume), new(deleteVolume), new(copyContent), new(awaitMerge),
		new(sendContent), new(receiveContent), new(endIncoming),
	} {
		if s.kind() == kind {
			return s
		}
	}
	return nil
}

// MarshalJSON implements [json.Marshaler].
func (ss steps) MarshalJSON() ([]byte, error) {
	texts := make([]stepText, len(ss))
	for i, s := range ss {
		with, err := json.Marshal(s)
		if err != nil {
			return nil, err
		}
		texts[i] = stepText{s.kind(), with}
	}
	return json.Marshal(texts)
}

// UnmarshalJSON implements [json.Unmarshaler].
func (ss *steps) UnmarshalJSON(p []byte) error {
	var texts []stepText
	if err := json.Unmarshal(p, &texts); err != nil {
		return err
	}
	*ss = nil
	for _, t := range texts {
		s := stepOf(t.Do)
		if s == nil {
			return fmt.Errorf("unknown step %q, written by a newer udm", t.Do)
		}
		if err := json.Unmarshal(t.With, s); err != nil {
			return err
		}
		*ss = append(*ss, s)
	}
	return nil
}
