package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"testing"
)

// A log in JSON has an object for each line.
func TestLogInJSON(t *testing.T) {
	var b bytes.Buffer
	slog.New(logHandler("json", &b, slog.LevelInfo)).Info("ready", "pid", 7)
	var line struct {
		Msg string
		PID int
	}
	if err := json.Unmarshal(b.Bytes(), &line); err != nil || line.Msg != "ready" || line.PID != 7 {
		t.Errorf("%v, %s", err, b.String())
	}
}
