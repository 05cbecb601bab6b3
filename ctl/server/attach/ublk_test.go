//go:build linux

package attach

import "testing"

// endedServer has ended, or serves.
type endedServer chan struct{}

func (endedServer) Leave()                   {}
func (s endedServer) Ended() <-chan struct{} { return s }

// A block device whose server has ended by itself is attached again, unless nobody waits for that:
// then it has been taken away from outside.
func TestAbandoned(t *testing.T) {
	ended := make(endedServer)
	close(ended)
	for _, c := range []struct {
		server endedServer
		waits  bool
		want   bool // that it is attached again, which forgets it here since its device is missing
		text   string
	}{
		{ended, true, true, "has ended"},
		{ended, false, false, "has ended, and the block device is gone"},
		{make(endedServer), true, false, "serves"},
	} {
		k := newKernel(t, t.TempDir())
		k.read = true
		k.devices[5] = attachment{ublkPrefix + "5", true}
		k.ublk[5] = c.server
		k.waiting = func(uint32) bool { return c.waits }
		k.Retry()
		if _, still := k.devices[5]; still == c.want {
			t.Errorf("the server %s: attached again %v, want %v", c.text, !still, c.want)
		}
	}
}
