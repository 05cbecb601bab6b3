//go:build linux

package vhost

import (
	"encoding/json"
	"fmt"
	"net"
)

// qmp is a connection to QEMU's monitor.
type qmp struct {
	conn   net.Conn
	in     *json.Decoder
	events []event // not taken yet
}

// event is what QEMU tells without being asked.
type event struct {
	Event string
	Data  struct{ Status string }
}

// reply is any message of QEMU.
type reply struct {
	event
	Return json.RawMessage
	Error  *struct{ Desc string }
}

// newQMP reads the greeting, and leaves the negotiation of capabilities.
func newQMP(c net.Conn) (*qmp, error) {
	q := &qmp{conn: c, in: json.NewDecoder(c)}
	if _, err := q.read(); err != nil {
		return nil, err
	}
	return q, q.do("qmp_capabilities", nil)
}

func (q *qmp) read() (r reply, err error) {
	err = q.in.Decode(&r)
	return r, err
}

// do runs a command.
func (q *qmp) do(command string, args any) error {
	m := map[string]any{"execute": command}
	if args != nil {
		m["arguments"] = args
	}
	if err := json.NewEncoder(q.conn).Encode(m); err != nil {
		return err
	}
	for {
		r, err := q.read()
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", command, err)
		case r.Error != nil:
			return fmt.Errorf("%s: %s", command, r.Error.Desc)
		case r.Event == "":
			return nil
		}
		q.events = append(q.events, r.event)
	}
}

// next is the next event of a name.
func (q *qmp) next(name string) (event, error) {
	for {
		for i, e := range q.events {
			if e.Event == name {
				q.events = q.events[i+1:]
				return e, nil
			}
		}
		r, err := q.read()
		if err != nil {
			return event{}, fmt.Errorf("while %s is awaited: %w", name, err)
		}
		q.events = append(q.events[:0], r.event)
	}
}
