package dm

// Event is something that has happened to a device.
type Event struct {
	Kind   EventKind
	Number Number
	Name   string // of a device that was renamed, the new one
	Nr     uint32 // the device's event number by then
}

// EventKind says what has happened.
type EventKind string

// What happens to devices. Renamed is also that a uuid was set; TableEvent is one
// that a target has raised.
const (
	Created    EventKind = "created"
	Loaded     EventKind = "loaded"
	Suspended  EventKind = "suspended"
	Resumed    EventKind = "resumed"
	Renamed    EventKind = "renamed"
	Removed    EventKind = "removed"
	TableEvent EventKind = "event"
)

// SetWatch has every event told to watch, which must not block and takes no lock
// that is held around calls of this package: a target may raise an event under
// locks of its own. It is called before the first device is made.
func (c *Control) SetWatch(watch func(Event)) { c.watch = watch }

// tell tells of an event. No lock is held.
func (d *Device) tell(kind EventKind) {
	if d.control.watch != nil {
		d.control.watch(Event{kind, d.number, d.Name(), d.eventNow()})
	}
}
