package fs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"

	"udm/test/watchdog"
)

// writer writes small files and makes each durable before the next. What it has
// written it knows, and so does its content.
type writer struct {
	dir  string
	done sync.WaitGroup

	mu      sync.Mutex
	changed sync.Cond // mu; broadcast when one of the below changes
	durable int64     // guarded by mu; files 0 to durable-1 are on the disk
	stop    bool      // guarded by mu
	err     error     // guarded by mu; why it has stopped by itself
}

// write starts a writer that goes on until it is stopped or fails.
func write(dir string) (*writer, error) {
	w := &writer{dir: filepath.Join(dir, "durable")}
	w.changed.L = &w.mu
	if err := os.Mkdir(w.dir, 0o700); err != nil {
		return nil, err
	}
	if err := syncPath(dir); err != nil {
		return nil, err
	}
	w.done.Go(func() {
		for n := int64(0); w.wrote(w.one(n)); n++ {
		}
	})
	return w, nil
}

// wrote counts a file and reports whether to go on.
func (w *writer) wrote(err error) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		w.durable++
	}
	w.err = err
	w.changed.Broadcast()
	return err == nil && !w.stop
}

func (w *writer) one(n int64) error {
	f, err := os.Create(filepath.Join(w.dir, fmt.Sprint(n)))
	if err != nil {
		return err
	}
	_, err = f.Write(content(n))
	return errors.Join(err, f.Sync(), f.Close(), syncPath(w.dir))
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// more waits until n more files are durable and tells how many are.
func (w *writer) more(n int64) (int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for target := w.durable + n; w.durable < target && w.err == nil; {
		w.changed.Wait()
	}
	return w.durable, w.err
}

// end stops the writer, waits for it, and tells how many files are durable.
func (w *writer) end() int64 {
	w.mu.Lock()
	w.stop = true
	w.mu.Unlock()
	w.done.Wait()
	return w.durable
}

// content is what file n holds: up to 40 KiB.
func content(n int64) []byte {
	line := fmt.Appendf(nil, "file %d says so again and again\n", n)
	return bytes.Repeat(line, int(1+n*37%1200))
}

// check reads the first n files of a writer below dir.
func check(dir string, n int64) error {
	for i := range n {
		p, err := os.ReadFile(filepath.Join(dir, "durable", fmt.Sprint(i)))
		if err != nil {
			return err
		}
		if !bytes.Equal(p, content(i)) {
			return fmt.Errorf("file %d of %d durable ones has another content (%d bytes)", i, n, len(p))
		}
	}
	return nil
}

// load is a writer with stress-ng beside it.
type load struct {
	*writer
	cmd *exec.Cmd // nil: ended
}

// startLoad works below dir, from which it removes what an earlier one left.
func startLoad(r *rig, dir string) *load {
	r.Helper()
	work := filepath.Join(dir, "work")
	r.must(errors.Join(os.RemoveAll(work), os.RemoveAll(filepath.Join(dir, "durable"))))
	r.must(os.Mkdir(work, 0o777))
	w, err := write(dir)
	r.must(err)
	cmd := exec.Command("stress-ng", stressArgs(work, "600")...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r.must(cmd.Start())
	l := &load{w, cmd}
	r.Cleanup(func() { l.kill() })
	return l
}

// kill ends stress-ng, which ends what it started, and the writer, and tells how
// many files are durable.
func (l *load) kill() int64 {
	if l.cmd != nil {
		l.cmd.Process.Signal(syscall.SIGINT)
		_ = watchdog.Wait(l.cmd, longest)
		l.cmd = nil
	}
	return l.end()
}
