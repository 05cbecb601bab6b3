package service

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"udm/ctl"
	"udm/ctl/server/handover"
	"udm/targets/all"
)

// Devices that depend on each other are handed over together, and no more at once than is
// asked for; what the front ends cannot divide comes first.
func TestGroups(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	s, err := New(Config{Root: t.TempDir(), Types: all.Types(), AtOnce: 2})
	must(t, err)
	must(t, s.Restore(ctx))
	defer ended(t, s)
	file := func(name string) string {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err != nil {
			must(t, os.WriteFile(path, make([]byte, 1<<20), 0o600))
		}
		return path
	}
	for _, d := range []struct{ name, table string }{
		{"empty", ""},
		{"low", "0 8 linear " + file("low") + " 0"},
		{"clone1", "0 8 snapshot " + file("image") + " " + file("cow1") + " P 8"},
		{"half1", "0 8 linear " + file("halves") + " 0"},
		{"open", "0 8 linear " + file("open") + " 0"},
		{"clone2", "0 8 snapshot " + file("image") + " " + file("cow2") + " P 8"},
		{"suspended", "0 8 linear " + file("suspended") + " 0"},
		{"high", "0 8 linear /dev/mapper/low 0"},
		{"half2", "0 8 linear " + file("halves") + " 8"},
		{"half3", "0 8 linear " + file("halves") + " 16"},
		{"used", "0 8 linear " + file("used") + " 0"},
	} {
		_, err := s.Create(ctx, ctl.Create{Name: d.name, Table: d.table})
		must(t, err)
	}
	_, err = s.Suspend(ctx, ctl.Suspend{Ref: ctl.Ref{Name: "suspended"}})
	must(t, err)
	dev, err := s.Open(ctl.Ref{Name: "open"}, true)
	must(t, err)
	x, err := s.Exports().For(NBDClients).ByName().Open("used")
	must(t, err)
	first, rest := s.Groups()
	got := []string{namesIn(s, first)}
	for _, g := range rest {
		got = append(got, namesIn(s, g))
	}
	want := []string{"empty open suspended", "high low", "clone1", "half1 half2 half3", "clone2 used"}
	if !slices.Equal(got, want) {
		t.Errorf("the groups are %q, want %q", got, want)
	}
	x.Done()
	must(t, dev.Close())
}

func namesIn(s *Service, g handover.Group) string {
	var names []string
	for _, minor := range slices.Sorted(maps.Keys(g)) {
		d, err := s.find(ctl.Ref{Number: &ctl.Number{Major: 254, Minor: minor}})
		if err != nil {
			return fmt.Sprint(err)
		}
		names = append(names, d.Name())
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}
