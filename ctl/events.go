package ctl

// Event is something that has happened to a device, or that a subscriber has lost
// some.
type Event struct {
	Kind   EventKind `json:"kind"`
	Number *Number   `json:"number,omitempty"`
	Name   string    `json:"name,omitempty"`  // of a device that was renamed, the new one
	Event  uint32    `json:"event,omitempty"` // the device's event number by then
	Lost   uint64    `json:"lost,omitempty"`  // how many events, of kind lost
}

// EventKind says what has happened.
type EventKind string

// The kinds of events. EventRenamed is also that a uuid was set; EventTable is one
// that a target has raised: udm targets tells when.
const (
	EventCreated   EventKind = "created"
	EventLoaded    EventKind = "loaded"
	EventSuspended EventKind = "suspended"
	EventResumed   EventKind = "resumed"
	EventRenamed   EventKind = "renamed"
	EventRemoved   EventKind = "removed"
	EventTable     EventKind = "event"
	EventsLost     EventKind = "lost"
)
