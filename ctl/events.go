package ctl

// Event is something that happened to a device, or a notice that events were lost.
type Event struct {
	Kind   EventKind `json:"kind"`
	Number *Number   `json:"number,omitempty"`
	Name   string    `json:"name,omitempty"`  // after a rename, the new one
	Event  uint32    `json:"event,omitempty"` // the device's event number at that time
	Lost   uint64    `json:"lost,omitempty"`  // for EventLost: the number of lost events
}

// EventKind is the kind of an event.
type EventKind string

// The kinds of events. EventRenamed is also sent when a uuid is set. EventTable is
// raised by a target; udm targets says when.
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
