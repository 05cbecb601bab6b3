package dmioctl

import "bytes"

// form is the layout of a command's data: how they are appended to the header, and
// parsed from what follows it.
type form struct {
	append func(*Message, []byte) []byte
	parse  func(*Message, []byte) error
}

const (
	specSize    = 40 // struct dm_target_spec
	typeSize    = 16
	nameHead    = 12 // struct dm_name_list up to the name
	versionHead = 16 // struct dm_target_versions up to the name
)

// The flags of an entry of the list of devices.
const hasUUID, hasNoUUID = 1, 2

var (
	table    = form{func(m *Message, b []byte) []byte { return appendTargets(m, b, true) }, func(m *Message, b []byte) error { return parseTargets(m, b, true) }}
	statuses = form{func(m *Message, b []byte) []byte { return appendTargets(m, b, false) }, func(m *Message, b []byte) error { return parseTargets(m, b, false) }}
	text     = form{func(m *Message, b []byte) []byte { return appendText(b, m.Text) }, func(m *Message, b []byte) error { return textTo(&m.Text, b) }}
	message  = form{appendMessage, parseMessage}
	reply    = form{appendReply, parseReply}
	devices  = form{appendDevices, parseDevices}
	deps     = form{appendDeps, parseDeps}
	versions = form{appendVersions, parseVersions}
)

func appendText(b []byte, s string) []byte { return append(append(b, s...), 0) }

// align pads to eight bytes, counted from the start of the data.
func align(b []byte) []byte {
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	return b
}

// textTo takes a text that must end within b.
func textTo(s *string, b []byte) error {
	i := bytes.IndexByte(b, 0)
	if i < 0 {
		return ErrMalformed
	}
	*s = string(b[:i])
	return nil
}

// appendTargets chains targets: in a request each holds the distance from itself to the
// next, in an answer the distance from the first.
func appendTargets(m *Message, b []byte, fromItself bool) []byte {
	from := len(b)
	for _, t := range m.Targets {
		at := len(b)
		b = le.AppendUint64(b, t.Start)
		b = le.AppendUint64(b, t.Length)
		b = le.AppendUint32(b, uint32(t.Status))
		b = le.AppendUint32(b, 0)
		var name [typeSize]byte
		copy(name[:typeSize-1], t.Type)
		b = align(appendText(append(b, name[:]...), t.Params))
		if fromItself {
			from = at
		}
		le.PutUint32(b[at+20:], uint32(len(b)-from))
	}
	return b
}

func parseTargets(m *Message, b []byte, fromItself bool) error {
	for at := uint64(0); len(m.Targets) < int(m.TargetCount); {
		if at+specSize > uint64(len(b)) {
			return ErrMalformed
		}
		p := b[at:]
		t := Target{Start: le.Uint64(p), Length: le.Uint64(p[8:]), Status: int32(le.Uint32(p[16:])), Type: upToNUL(p[24 : 24+typeSize-1])}
		if err := textTo(&t.Params, p[specSize:]); err != nil {
			return err
		}
		m.Targets = append(m.Targets, t)
		next := uint64(le.Uint32(p[20:]))
		if fromItself {
			next += at
		}
		if next <= at && len(m.Targets) < int(m.TargetCount) {
			return ErrMalformed
		}
		at = next
	}
	return nil
}

func appendMessage(m *Message, b []byte) []byte {
	return appendText(le.AppendUint64(b, m.Sector), m.Text)
}

func parseMessage(m *Message, b []byte) error {
	if len(b) < 8 {
		return ErrMalformed
	}
	m.Sector = le.Uint64(b)
	return textTo(&m.Text, b[8:])
}

// A message is answered with data only if the target has something to say.
func appendReply(m *Message, b []byte) []byte {
	if m.Flags&DataOut == 0 {
		return b
	}
	return appendText(b, m.Text)
}

func parseReply(m *Message, b []byte) error {
	if m.Flags&DataOut == 0 {
		return nil
	}
	return textTo(&m.Text, b)
}

// appendDevices makes a list; an empty one is the number 0.
func appendDevices(m *Message, b []byte) []byte {
	if len(m.Devices) == 0 {
		return le.AppendUint64(b, 0)
	}
	for i, d := range m.Devices {
		at := len(b)
		b = le.AppendUint32(le.AppendUint64(b, huge(d.Dev)), 0)
		b = le.AppendUint32(align(appendText(b, d.Name)), d.Event)
		switch {
		case !d.WithUUID:
			b = le.AppendUint32(b, 0)
		case d.UUID == "":
			b = le.AppendUint32(b, hasNoUUID)
		default:
			b = appendText(le.AppendUint32(b, hasUUID), d.UUID)
		}
		b = align(b)
		if i < len(m.Devices)-1 {
			le.PutUint32(b[at+8:], uint32(len(b)-at))
		}
	}
	return b
}

func parseDevices(m *Message, b []byte) error {
	for {
		if len(b) < 8 || le.Uint64(b) == 0 {
			return nil
		}
		d, next, err := parseDevice(b)
		if err != nil {
			return err
		}
		m.Devices = append(m.Devices, d)
		if next == 0 {
			return nil
		}
		if int64(next) > int64(len(b)) {
			return ErrMalformed
		}
		b = b[next:]
	}
}

func parseDevice(b []byte) (d Device, next uint32, err error) {
	if len(b) < nameHead {
		return d, 0, ErrMalformed
	}
	d.Dev, next = number(le.Uint64(b)), le.Uint32(b[8:])
	if err := textTo(&d.Name, b[nameHead:]); err != nil {
		return d, 0, err
	}
	at := (nameHead + len(d.Name) + 1 + 7) &^ 7
	if at+8 > len(b) {
		return d, 0, ErrMalformed
	}
	flags := le.Uint32(b[at+4:])
	d.Event, d.WithUUID = le.Uint32(b[at:]), flags != 0
	if flags&hasUUID != 0 {
		err = textTo(&d.UUID, b[at+8:])
	}
	return d, next, err
}

func appendDeps(m *Message, b []byte) []byte {
	b = le.AppendUint64(b, uint64(len(m.Deps)))
	for _, n := range m.Deps {
		b = le.AppendUint64(b, huge(n))
	}
	return b
}

func parseDeps(m *Message, b []byte) error {
	if len(b) < 8 || uint64(le.Uint32(b)) > uint64(len(b)-8)/8 {
		return ErrMalformed
	}
	for range le.Uint32(b) {
		b = b[8:]
		m.Deps = append(m.Deps, number(le.Uint64(b)))
	}
	return nil
}

func appendVersions(m *Message, b []byte) []byte {
	for i, v := range m.Versions {
		at := len(b)
		b = le.AppendUint32(b, 0)
		for _, n := range v.Version {
			b = le.AppendUint32(b, n)
		}
		b = align(appendText(b, v.Name))
		if i < len(m.Versions)-1 {
			le.PutUint32(b[at:], uint32(len(b)-at))
		}
	}
	return b
}

func parseVersions(m *Message, b []byte) error {
	for len(b) > 0 {
		if len(b) < versionHead {
			return ErrMalformed
		}
		v := TargetVersion{Version: [3]uint32{le.Uint32(b[4:]), le.Uint32(b[8:]), le.Uint32(b[12:])}}
		if err := textTo(&v.Name, b[versionHead:]); err != nil {
			return err
		}
		m.Versions = append(m.Versions, v)
		next := le.Uint32(b)
		if next == 0 {
			return nil
		}
		if int64(next) > int64(len(b)) {
			return ErrMalformed
		}
		b = b[next:]
	}
	return nil
}
