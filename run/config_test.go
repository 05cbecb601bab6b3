package run

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseDisks(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "a=b.img")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := ParseDisks([]string{"sda=" + file})
	if err != nil || len(got) != 1 || got[0] != (Disk{"sda", file}) {
		t.Errorf("%v, %v", got, err)
	}
	for text, want := range map[string]string{
		"sda":                     "give name=file",
		"=" + file:                "cannot be the name",
		"mapper=" + file:          "cannot be the name",
		"dm-3=" + file:            "cannot be the name",
		"a/b=" + file:             "cannot be the name",
		"sda=" + dir:              "not a regular file",
		"sda=" + file + ".absent": "no such file",
		"sdb=" + file:             "given twice",
	} {
		texts := []string{text}
		if strings.HasPrefix(text, "sdb") {
			texts = []string{"sda=" + file, text}
		}
		if _, err := ParseDisks(texts); err == nil || !strings.Contains(strings.ToLower(err.Error()), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
