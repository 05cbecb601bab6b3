package protocol

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"udm/blk/leaf"
	"udm/ctl"
	"udm/ctl/server/service"
	"udm/dm"
	"udm/env"
	"udm/targets/all"
)

// FuzzProtocol sends anything to any command: the answer is JSON, an error has
// an errno and a reason, and what is saved afterwards can be read.
func FuzzProtocol(f *testing.F) {
	for _, seed := range []struct{ command, body string }{
		{"version", ""}, {"targets", "{}"},
		{"list", `{"with":["table","status","deps"],"noflush":true}`},
		{"device", `{"number":{"major":254,"minor":0},"inactive":true}`},
		{"create", `{"name":"x","uuid":"u","minor":3,"table":"0 8 zero\n8 8 linear mem:1M 0"}`},
		{"load", `{"name":"base","table":"0 16 striped 2 8 mem:1M:a 0 /dev/mapper/base 0","readOnly":true}`},
		{"clear", `{"name":"base"}`}, {"suspend", `{"uuid":"B","noflush":true}`}, {"resume", `{"name":"base"}`},
		{"remove", `{"name":"base","deferred":true}`}, {"remove_all", `{}`},
		{"rename", `{"name":"base","newName":"x"}`}, {"rename", `{"name":"base","newUUID":"x"}`},
		{"message", `{"name":"base","sector":8,"text":"@stats_list"}`}, {"wait", `{"name":"base","event":1}`},
		{"register_disk", `{"major":7,"minor":3,"path":"mem:1M"}`}, {"unregister_disk", `{"major":7}`}, {"disks", ""}, {"front_ends", ""}, {"events", ""}, {"trace", `{"name":"base","ops":["read"],"slowerNanoseconds":1}`},
		{"create", `{"name":`}, {"create", `{"nosuch":1}`}, {"list", `[]`}, {"list", `{}{}`}, {"nosuch", `{}`},
	} {
		f.Add(seed.command, []byte(seed.body))
	}
	f.Fuzz(func(t *testing.T, command string, body []byte) {
		if strings.ContainsAny(command, "? #%\r\n") || touchesFiles(body) {
			return
		}
		root := t.TempDir()
		s, control := newFuzzed(t, root)
		ctx, cancel := context.WithCancel(context.Background())
		if command == "wait" || command == "events" || command == "trace" {
			cancel() // it would wait for an event that does not come
		}
		defer cancel()
		answer := httptest.NewRecorder()
		req := httptest.NewRequest(http.MethodPost, "http://udm/v1/x", bytes.NewReader(body)).WithContext(ctx)
		req.URL.Path = "/v1/" + command
		Handler(s, slog.New(slog.DiscardHandler)).ServeHTTP(answer, req)
		if command != "events" && command != "trace" || answer.Code != http.StatusOK {
			checkAnswer(t, answer)
		}
		for _, d := range control.List() {
			// Nobody may be left waiting in a device that is suspended.
			if err := d.Resume(context.Background(), true); err != nil {
				continue
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		readable(t, root)
	})
}

// touchesFiles reports whether a request might name a file of the machine.
func touchesFiles(body []byte) bool {
	rest := bytes.ReplaceAll(body, []byte("/dev/mapper/"), nil)
	return bytes.Contains(rest, []byte("/")) || bytes.Contains(rest, []byte(`\u`))
}

func newFuzzed(t *testing.T, root string) (*service.Service, *dm.Control) {
	opener := leaf.New(env.Real())
	control := dm.NewControl(env.Real(), opener, all.Types()...)
	s, err := service.New(service.Config{Root: root, Program: "test", Opener: opener, Control: control})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Restore(context.Background()); err != nil {
		t.Fatal(err)
	}
	_, err = s.Create(context.Background(), ctl.Create{Name: "base", UUID: "B", Table: "0 64 linear mem:1M:base 0"})
	if err != nil {
		t.Fatal(err)
	}
	return s, control
}

// readable reports what a service says about the saved state at root.
func readable(t *testing.T, root string) {
	again, err := service.New(service.Config{Root: root, Types: all.Types()})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Restore(context.Background()); err != nil {
		t.Errorf("what was saved cannot be read: %v", err)
	}
	again.FailSuspended()
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func checkAnswer(t *testing.T, answer *httptest.ResponseRecorder) {
	t.Helper()
	if !json.Valid(answer.Body.Bytes()) && answer.Code != http.StatusMovedPermanently && answer.Code != http.StatusTemporaryRedirect {
		t.Fatalf("status %d, no JSON: %q", answer.Code, answer.Body)
	}
	if answer.Code != http.StatusBadRequest && answer.Code != http.StatusNotFound {
		return
	}
	var e ctl.Error
	if err := json.Unmarshal(answer.Body.Bytes(), &e); err != nil || e.Errno == "" || e.Reason == "" {
		t.Errorf("status %d: %q", answer.Code, answer.Body)
	}
}
