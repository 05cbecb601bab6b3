//go:build unix

package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"udm/test/kernel/conform"
)

const (
	scriptDir = "testdata/script"
	goldenDir = "testdata/golden"
)

// conformanceLimit is the time that one boot may take for its share of the scripts: ten times what it needs.
const conformanceLimit = 6 * time.Minute

// buildStatic builds a command of this module so that it runs inside the kernel, and returns the program's path.
func buildStatic(dir, pkg string) (string, error) {
	program := filepath.Join(dir, filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-o", program, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
	}
	return program, nil
}

// boots is how many kernels run at the same time; each has one processor.
const boots = 2

// kernelJob is a set of scripts for the kernel.
type kernelJob struct {
	dir     string // of the scripts
	scripts []conform.Script
	out     string // where the golden files go
	keep    bool   // disks come from and go to out/disks
}

// ask runs the scripts, shared out to several kernels.
func (j *kernelJob) ask(ctx context.Context) error {
	tmp, err := os.MkdirTemp("", "agent")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	agent, err := buildStatic(tmp, "udm/test/kernel/agent")
	if err != nil {
		return err
	}
	if j.keep {
		agent += "' -disks '/run/out/disks"
	}
	errs := make([]error, boots)
	var wg sync.WaitGroup
	for i, share := range shareOut(j.scripts, boots) {
		if share != "" {
			wg.Go(func() {
				errs[i] = runAgent(ctx, j.out, fmt.Sprintf("exec '%s' $OUT '%s' %s", agent, absolute(j.dir), share))
			})
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}

func runAgent(ctx context.Context, out, line string) error {
	r, err := Run(ctx, Options{Script: line, Dir: out, Timeout: conformanceLimit})
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
