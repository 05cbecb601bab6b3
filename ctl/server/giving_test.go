package server

import (
	"runtime/debug"
	"testing"
)

// Garbage is collected as before once a handover has ended or failed, however often that is said.
func TestUncollected(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(70))
	g := &giving{collect: uncollected()}
	if percent := debug.SetGCPercent(-1); percent != -1 {
		t.Errorf("garbage is collected at %d percent while I/O waits", percent)
	}
	g.collectAgain()
	g.collectAgain()
	if percent := debug.SetGCPercent(70); percent != 70 {
		t.Errorf("garbage is collected at %d percent afterwards", percent)
	}
}
