package events

import (
	"context"
	"testing"

	"udm/blk/blktest"
	"udm/ctl"
	"udm/env"
)

// A subscriber that does not keep up is told how many events are lost, and gets
// those that come after.
func TestSlowSubscriber(t *testing.T) {
	blktest.Leaks(t)
	h := NewHub(env.Real())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	events := h.Subscribe(ctx)
	for i := range uint32(maxQueued + 7) {
		h.Tell(ctl.Event{Kind: "event", Event: i})
	}
	want := uint32(0)
	for e, err := range events {
		switch {
		case err != nil:
			t.Fatal(err)
		case want < maxQueued:
			if e.Kind != "event" || e.Event != want {
				t.Fatalf("%+v, want %d", e, want)
			}
		case want == maxQueued:
			if e.Kind != ctl.EventsLost || e.Lost != 7 {
				t.Fatalf("%+v", e)
			}
			h.Tell(ctl.Event{Kind: "removed"})
		default:
			if e.Kind != "removed" {
				t.Errorf("%+v", e)
			}
			cancel()
		}
		want++
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.subscribers) != 0 {
		t.Error("a subscription has not ended")
	}
}

// A subscription ends with its context although nobody ranges over it.
func TestSubscriptionEnds(t *testing.T) {
	blktest.Leaks(t)
	h := NewHub(env.Real())
	ctx, cancel := context.WithCancel(context.Background())
	events := h.Subscribe(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range events {
			t.Error("an event")
		}
	}()
	cancel()
	<-ended
	h.Tell(ctl.Event{Kind: "created"})
}
