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

// journal is a directory with a file for each operation that is not complete. The
// name of the file tells the progress of the operation:
//
//	ID.begun  Add has begun; the operation is to be undone
//	ID.N      it is past its point of no return and has done N steps of Then;
//	          the others are to be done
//
// All names have the same content, so that progress is a rename.
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

// prepare writes the intent of an operation. It does not count yet: after an error
// nothing has to be undone.
func (j journal) prepare(op *operation) error {
	err := hostfs.Prepare(j.fs, j.path(op, begun), op)
	if err != nil {
		_ = j.fs.Remove(j.path(op, begun) + ".new") // if this fails, read removes it
	}
	return err
}

// begin makes the prepared intent durable.
func (j journal) begin(op *operation) error { return hostfs.Commit(j.fs, j.path(op, begun)) }

// move durably changes the state of an operation. After an error it is in either
// state; move may be called again, or in reverse.
func (j journal) move(op *operation, from, to int) error {
	err := j.fs.Rename(j.path(op, from), j.path(op, to))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return j.fs.SyncDir(j.dir)
}

// end removes an operation that is complete in the given state, or that could not
// begin. If all its steps are done, this is durable when the next operation begins:
// see the package comment.
func (j journal) end(op *operation, state int) error {
	path := j.path(op, state)
	for _, p := range []string{path + ".new", path} {
		if err := j.fs.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if state == len(op.Then) {
		return nil
	}
	return j.fs.SyncDir(j.dir)
}

// read returns the operations that are not complete. A daemon that was killed may
// have renamed a file without flushing the directory. read flushes it first, so that
// a later power cut cannot change what was decided here.
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

// readOne reads a file of the journal. It removes one whose writing was interrupted
// before its operation began.
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
	if op.ID != id || state > len(op.Then) || len(op.Objects)+len(op.Shared) == 0 {
		return nil, fmt.Errorf("%s: describes another operation", path)
	}
	return op, nil
}
