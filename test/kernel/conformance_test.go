//go:build unix

package kernel

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"udm/test/kernel/conform"
)

// scripts reads the scripts that the flags ask for.
func scripts(t *testing.T) []conform.Script {
	t.Helper()
	all, err := conform.ReadDir(scriptDir)
	if err != nil || len(all) == 0 {
		t.Fatalf("%d scripts, %v", len(all), err)
	}
	if *only == "" {
		return all
	}
	var some []conform.Script
	for _, s := range all {
		if strings.Contains(","+*only+",", ","+s.Name+",") {
			some = append(some, s)
		}
	}
	return some
}

// TestKernel asks the kernel again and compares with the golden answers.
func TestKernel(t *testing.T) {
	Need(t)
	list := scripts(t)
	dir := t.TempDir()
	job := kernelJob{dir: scriptDir, scripts: list, out: dir}
	if err := job.ask(context.Background()); err != nil {
		t.Fatal(err)
	}
	if *update {
		replaceGolden(t, dir, list)
	}
	total := 0
	for _, s := range list {
		got, err := readGolden(dir, s)
		if err != nil {
			t.Fatal(err)
		}
		want, err := readGolden(goldenDir, s)
		if err != nil {
			t.Errorf("%v (go test -run TestKernel -update makes golden answers)", err)
			continue
		}
		total += conform.CountLines(want)
		for _, d := range conform.Compare(s, want, got, conform.CompareOptions{WantName: "golden", GotName: "kernel"}) {
			t.Error(d)
		}
	}
	t.Logf("%d scripts, %d answer lines", len(list), total)
}

// replaceGolden takes new answers. Where only the log lines differ, the old file stays.
func replaceGolden(t *testing.T, dir string, list []conform.Script) {
	t.Helper()
	for _, s := range list {
		got, err := readGolden(dir, s)
		if err != nil {
			t.Fatal(err)
		}
		want, err := readGolden(goldenDir, s)
		if err == nil && len(conform.Compare(s, want, got, conform.CompareOptions{})) == 0 {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, s.Name+".txt"))
		if err == nil {
			err = os.WriteFile(filepath.Join(goldenDir, s.Name+".txt"), text, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
