package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// queued tells for how long threads of this process have been ready to run without a
// processor (the second number of /proc/PID/task/TID/schedstat). Threads that begin later
// are not among them.
type queued struct {
	files  []*os.File
	before []time.Duration
	text   [64]byte
}

func newQueued() *queued {
	q := &queued{}
	paths, _ := filepath.Glob("/proc/self/task/*/schedstat")
	for _, path := range paths {
		if f, err := os.Open(path); err == nil { // else the thread has ended
			q.files = append(q.files, f)
		}
	}
	q.before = make([]time.Duration, len(q.files))
	return q
}

func (q *queued) begin() {
	for i, f := range q.files {
		q.before[i] = q.of(f)
	}
}

// longest is the longest that a thread was queued since begin.
func (q *queued) longest() (d time.Duration) {
	for i, f := range q.files {
		d = max(d, q.of(f)-q.before[i])
	}
	return d
}

func (q *queued) of(f *os.File) time.Duration {
	n, _ := f.ReadAt(q.text[:], 0)
	fields := bytes.Fields(q.text[:n])
	if len(fields) < 2 {
		return 0 // the thread has ended
	}
	ns, _ := strconv.ParseInt(string(fields[1]), 10, 64)
	return time.Duration(ns)
}

func (q *queued) close() {
	for _, f := range q.files {
		f.Close()
	}
}
