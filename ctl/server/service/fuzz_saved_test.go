package service

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"udm/ctl"
	"udm/targets/all"
)

// FuzzSaved starts a server on saved state that anybody may have written: what
// makes no sense is told about, the rest runs, and so does what is made then. The
// state as it is saved afterwards gives the same devices again.
func FuzzSaved(f *testing.F) {
	for _, text := range []string{
		`{"minor":3,"name":"a","live":{"text":["0 8 zero"]}}`,
		`{"minor":3,"name":"a","uuid":"u","live":{"text":["0 8 linear mem:1M 0","8 8 zero"],"readOnly":true},"inactive":{"text":["0 16 error"]},"suspended":true}`,
		`{"minor":3,"name":"gone","deferredRemove":true}`,
		`{"minor":3,"name":"a","live":{"text":["0 8 linear 254:3 0"]}}`,
		`{"minor":3,"name":"a","live":{"text":[]}}`, `{"minor":4,"name":"a"}`, `{"minor":3,"name":"b"}`, `{"minor":-1}`, `{}`, `[]`, `null`, ``, `{"minor":3,"na`,
		`{"minor":3,"name":"a","live":{"text":["0 8 thin 254:3 0"]},"inactive":{"text":["0 8 snapshot mem:1M mem:2M P 8"]}}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if touchesFiles(text) {
			return
		}
		root := t.TempDir()
		first := started(t, root)
		if err := first.Restore(context.Background()); err != nil {
			t.Fatal(err)
		}
		if _, err := first.Create(context.Background(), ctl.Create{Name: "b", Table: "0 8 zero"}); err != nil {
			t.Fatal(err)
		}
		ended(t, first)
		if err := os.WriteFile(filepath.Join(root, "devices", "3.json"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		s := started(t, root)
		told := s.Restore(context.Background()) != nil
		if _, err := s.Create(context.Background(), ctl.Create{Name: "fresh", UUID: "fresh", Table: "0 8 zero"}); err != nil && !told {
			t.Error(err)
		}
		names := namesOf(s)
		ended(t, s)
		again := started(t, root)
		if err := again.Restore(context.Background()); err != nil && !told {
			t.Error(err)
		}
		if got := namesOf(again); got != names {
			t.Errorf("after another start there is %s, not %s", got, names)
		}
		ended(t, again)
	})
}

func started(t *testing.T, root string) *Service {
	s, err := New(Config{Root: root, Program: "test", Types: all.Types()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func ended(t *testing.T, s *Service) {
	s.FailSuspended() // nobody may be left waiting
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func namesOf(s *Service) (names string) {
	for _, d := range s.control.List() {
		names += d.Name() + " "
	}
	return names
}

// touchesFiles reports whether saved state might name a file of the machine.
func touchesFiles(text []byte) bool {
	rest := bytes.ReplaceAll(text, []byte("/dev/mapper/"), nil)
	return bytes.Contains(rest, []byte("/")) || bytes.Contains(rest, []byte(`\u`))
}
