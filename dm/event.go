package dm

// Event is something that has happened to a device.
type Event struct {
	Kind   EventKind
	Number Number
	Name   string // of a device that was renamed, the new name
	Nr     uint32 // the device's event number at that time
}

// EventKind says what has happened.
type EventKind string

// Renamed is also the event of a uuid that was set; TableEvent is an event that a
// target has raised.
const (
	Created    EventKind = "created"
	Loaded     EventKind = "loaded"
	Suspended  EventKind = "suspended"
	Resumed    EventKind = "resumed"
	Renamed    EventKind = "renamed"
	Removed    EventKind = "removed"
	TableEvent EventKind = "event"
)

// SetWatch makes c call watch for every event. Targets raise events under locks of
// their own, so watch must not block, and must not take a lock under which this package
// is called. SetWatch must be called before the first device is made.
func (c *Control) SetWatch(watch func(Event)) { c.watch = watch }

// tell reports an event to the watcher. No lock of this package is held.
func (d *Device) tell(kind EventKind) {
	if d.control.watch != nil {
		d.control.watch(Event{kind, d.number, d.Name(), d.eventNow()})
	}
}
