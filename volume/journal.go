package volume

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"udm/env/hostfs"
)

// journal is a directory with a file for each operation that is not over. Its
// name tells how far the operation is:
//
//	ID.begun  what it adds is being added, or was; it is to be undone
//	ID.N      it is past its point of no return and has done N of the steps
//	          behind that; the others are to be done
//
// All hold the same text, so that getting on is a rename.
type journal struct {
	fs  hostfs.FS
	dir string
}

// begun is the state of an operation that has not passed its point of no return.
const begun = -1

func (j journal) path(op *operation, state int) string {
	ext := "begun"
	if state != begun {
		ext = strconv.Itoa(state)
	}
	return filepath.Join(j.dir, op.ID+"."+ext)
}

// prepare writes the intent of an operation. It is none yet: after an error nothing
// is to be undone.
func (j journal) prepare(op *operation) error {
	err := hostfs.Prepare(j.fs, j.path(op, begun), op)
	if err != nil {
		_ = j.fs.Remove(j.path(op, begun) + ".new") // else read removes it
	}
	return err
}

// begin makes the intent that was prepared durable.
func (j journal) begin(op *operation) error { return hostfs.Commit(j.fs, j.path(op, begun)) }

// move makes durable that an operation has got from one state to another. After
// an error it is in either; move may be called again, or back.
func (j journal) move(op *operation, from, to int) error {
	err := j.fs.Rename(j.path(op, from), j.path(op, to))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return j.fs.SyncDir(j.dir)
}

// end forgets an operation that is over, in its state, and what was left when it
// could not begin.
func (j journal) end(op *operation, state int) error {
	path := j.path(op, state)
	for _, p := range []string{path + ".new", path} {
		if err := j.fs.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return j.fs.SyncDir(j.dir)
}

// read returns the operations that are not over. A daemon that was killed may
// have left a name changed, but not on the disk: that is flushed first, so that
// what is decided now is not decided otherwise after a later power cut.
func (j journal) read() ([]*operation, error) {
	if err := hostfs.MakeDir(j.fs, j.dir); err != nil {
		return nil, err
	}
	if err := j.fs.SyncDir(j.dir); err != nil {
		return nil, err
	}
	names, err := j.fs.ReadDir(j.dir)
	if err != nil {
		return nil, err
	}
	var ops []*operation
	for _, name := range names {
		op, rerr := j.readOne(name)
		if err = errors.Join(err, rerr); op != nil {
			ops = append(ops, op)
		}
	}
	return ops, err
}

// readOne reads a file of the journal. One that was being written when its
// operation was to begin is removed.
func (j journal) readOne(name string) (*operation, error) {
	path := filepath.Join(j.dir, name)
	id, ext, _ := strings.Cut(name, ".")
	state, err := strconv.Atoi(ext)
	if ext == "begun" {
		state, err = begun, nil
	}
	if err != nil {
		return nil, j.fs.Remove(path)
	}
	text, err := j.fs.ReadFile(path)
	if err != nil {
		return nil, err
	}
	op := &operation{entered: true, state: state}
	if err := json.Unmarshal(text, op); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if op.ID != id || state > len(op.Then) || len(op.Objects) == 0 {
		return nil, fmt.Errorf("%s: describes another operation", path)
	}
	return op, nil
}
