package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// report collects figures and claims.
type report struct {
	settings
	Machine string    `json:"machine"`
	Figures []*figure `json:"figures"`
	Claims  []claim   `json:"claims"`
}

func newReport(s settings) *report { return &report{settings: s, Machine: machine()} }

// machine describes the machine: processor, number of processors and Go version.
func machine() string {
	cpu := "unknown processor"
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if _, name, ok := strings.Cut(lines.Text(), "model name\t: "); ok {
				cpu = name
				break
			}
		}
	}
	return fmt.Sprintf("%s, %d processors, %s, %s/%s", cpu, runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// number prints three significant digits, and large numbers without a fraction.
func number(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// write prints the report and saves it as Markdown, JSON and plots.
func (r *report) write(w io.Writer) error {
	md := r.markdown()
	fmt.Fprint(w, md)
	if err := os.MkdirAll(r.out, 0o777); err != nil {
		return err
	}
	js, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(r.out, "report.json"), js, 0o666); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(r.out, "report.md"), []byte(md), 0o666); err != nil {
		return err
	}
	return r.plots()
}

func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Benchmarks\n\n%s; %d rounds, cases of a group in turn.\n", r.Machine, r.rounds)
	group := ""
	for _, f := range r.Figures {
		if f.Group != group {
			group = f.Group
			fmt.Fprintf(&b, "\n## %s\n\n| case | median | lowest | highest | unit |\n|---|---:|---:|---:|---|\n", group)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", f.Name, number(f.median()), number(f.low()), number(f.high()), f.Unit)
	}
	fmt.Fprintf(&b, "\n## Claims\n\n| claim | found | bound | holds |\n|---|---:|---:|---|\n")
	for _, c := range r.Claims {
		holds := "yes"
		if !c.Holds {
			holds = "**no**"
		}
		fmt.Fprintf(&b, "| %s | %.3g | %s | %s |\n", c.Text, c.Found, c.Bound, holds)
	}
	return b.String()
}
