package main

import (
	"runtime/debug"
	"strings"
	"testing"
)

func TestVersion(t *testing.T) {
	vcs := func(commit, modified string) []debug.BuildSetting {
		return []debug.BuildSetting{{Key: "vcs.revision", Value: commit}, {Key: "vcs.time", Value: "2026-11-29T08:12:12Z"}, {Key: "vcs.modified", Value: modified}}
	}
	for _, c := range []struct {
		version  string
		settings []debug.BuildSetting
		want     string
	}{
		{"v1.2.0", vcs("879d656f", "false"), "v1.2.0 (commit 879d656f, "},
		{"v1.2.0+dirty", vcs("879d656f", "true"), "v1.2.0+dirty (commit 879d656f with changes, "},
		{"(devel)", nil, "(devel) (commit unknown, "},
		{"", nil, "(devel) (commit unknown, "},
	} {
		info := &debug.BuildInfo{Main: debug.Module{Version: c.version}, Settings: c.settings}
		if got := buildFrom(info).String(); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s, want %s…", got, c.want)
		}
	}
}
