//go:build unix

package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"udm/test/kernel/conform"
	"udm/test/program"
)

const (
	scriptDir = "testdata/script"
	goldenDir = "testdata/golden"
)

// boots is how many kernels run at the same time; each has one processor.
const boots = 2

// kernelJob is a set of scripts for the kernel.
type kernelJob struct {
	dir     string // of the scripts
	scripts []conform.Script
	out     string // where the golden files go
	keep    bool   // disks come from and go to out/disks
}

// ask runs the scripts of all jobs, shared out to several kernels. The jobs' folders for answers are below base. If a kernel fails by
// itself, all are asked again, once.
func ask(t *testing.T, base string, jobs ...kernelJob) {
	t.Helper()
	agent := program.Build(t, "udm/test/kernel/agent")
	var lines [boots]string
	for _, j := range jobs {
		for i, share := range shareOut(j.scripts, boots) {
			if share != "" {
				lines[i] += j.line(agent, base) + share + "\n"
			}
		}
	}
	err := again(t, []string{base}, func() error {
		errs := make([]error, boots)
		var wg sync.WaitGroup
		for i, line := range lines {
			if line != "" {
				wg.Go(func() { errs[i] = runAgent(base, line) })
			}
		}
		wg.Wait()
		return errors.Join(errs...)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// line is the command of a job, without the scripts' names.
func (j kernelJob) line(agent, base string) string {
	out := "/run/out" + strings.TrimPrefix(j.out, base)
	if j.keep {
		agent += "' -disks '" + out + "/disks"
	}
	return fmt.Sprintf("'%s' '%s' '%s'", agent, out, absolute(j.dir))
}

func runAgent(base, script string) error {
	r, err := Run(context.Background(), Options{Script: script, Dir: base})
	if err == nil && r.Exit != 0 {
		err = fmt.Errorf("agent: exit code %d", r.Exit)
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, r.Output)
	}
	return nil
}

// shareOut deals the scripts' names to n lists that have about the same number of lines.
func shareOut(scripts []conform.Script, n int) []string {
	scripts = slices.Clone(scripts)
	slices.SortStableFunc(scripts, func(a, b conform.Script) int { return len(b.Lines) - len(a.Lines) })
	names, load := make([]string, n), make([]int, n)
	for _, s := range scripts {
		i := slices.Index(load, slices.Min(load))
		names[i] += " " + s.Name
		load[i] += len(s.Lines)
	}
	return names
}

// readGolden reads the answers to a script from a folder of golden files.
func readGolden(dir string, s conform.Script) ([]conform.Answer, error) {
	text, err := os.ReadFile(filepath.Join(dir, s.Name+".txt"))
	if err != nil {
		return nil, err
	}
	return conform.ParseGolden(s, string(text))
}
