package kernel

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"udm/test/kernel/conform"
)

const (
	scriptDir = "testdata/script"
	goldenDir = "testdata/golden"
)

// conformanceLimit is the time that all scripts together may take on the kernel.
const conformanceLimit = 150 * time.Second

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

// askKernel runs the scripts of a folder, all or the named ones, in one boot. The answers are golden files in the folder that is
// returned, below work.
func askKernel(ctx context.Context, work, scripts string, names ...string) (string, error) {
	agent, err := buildStatic(work, "udm/test/kernel/agent")
	if err != nil {
		return "", err
	}
	out := filepath.Join(work, "answers")
	if err := os.Mkdir(out, 0o700); err != nil {
		return "", err
	}
	line := fmt.Sprintf("exec '%s' $OUT '%s' %s", agent, absolute(scripts), strings.Join(names, " "))
	r, err := Run(ctx, Options{Script: line, Dir: out, Timeout: conformanceLimit})
	if err == nil && r.Exit != 0 {
		err = fmt.Errorf("agent: exit code %d", r.Exit)
	}
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, r.Output)
	}
	return out, err
}

// readGolden reads the answers to a script from a folder of golden files.
func readGolden(dir string, s conform.Script) ([]conform.Answer, error) {
	text, err := os.ReadFile(filepath.Join(dir, s.Name+".txt"))
	if err != nil {
		return nil, err
	}
	return conform.ParseGolden(s, string(text))
}
