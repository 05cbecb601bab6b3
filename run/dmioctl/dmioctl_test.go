package dmioctl

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"strings"
	"testing"

	"udm/blk"
)

// full is a message with something in every field.
func full() *Message {
	return &Message{
		Version: [3]uint32{4, 47, 0}, TargetCount: 2, OpenCount: 3, Flags: ReadOnly | StatusTable, Event: 7, Dev: blk.Number{Major: 254, Minor: 70000},
		Name: "vg-lv", UUID: "LVM-0123",
		Targets: []Target{{0, 8, 0, "linear", "7:0 2048"}, {8, 16, -5, "zero", ""}},
		Text:    "create_thin 0", Sector: 1 << 40,
		Devices:  []Device{{blk.Number{Major: 254, Minor: 1}, 9, "a", "U", true}, {blk.Number{Major: 254, Minor: 256}, 0, "longer-name", "", true}},
		Deps:     []blk.Number{{Major: 7, Minor: 0}, {Major: 4095, Minor: 1<<20 - 1}},
		Versions: []TargetVersion{{[3]uint32{1, 2, 3}, "linear"}, {[3]uint32{1, 22, 0}, "thin-pool"}},
	}
}

// only keeps of a message what a command has in a direction.
func only(c Command, d Direction, m *Message) *Message {
	out := *m
	out.Targets, out.Text, out.Sector, out.Devices, out.Deps, out.Versions = nil, "", 0, nil, nil, nil
	switch c {
	case TableLoad, DevWait, TableStatus:
		if (c == TableLoad) == (d == Request) {
			out.Targets = m.Targets
		}
	case DevRename, DevSetGeometry:
		if d == Request {
			out.Text = m.Text
		}
	case TargetMsg:
		out.Text = m.Text
		if d == Request {
			out.Sector = m.Sector
		} else {
			out.Flags |= DataOut
		}
	case ListDevices:
		if d == Answer {
			out.Devices = m.Devices
		}
	case TableDeps:
		if d == Answer {
			out.Deps = m.Deps
		}
	case ListVersions, GetTargetVersion:
		if d == Answer {
			out.Versions = m.Versions
		}
	}
	return &out
}

// What is marshalled comes back, for each command in both directions.
func TestRoundTrip(t *testing.T) {
	for c := Version; c.Known(); c++ {
		for _, d := range []Direction{Request, Answer} {
			want := only(c, d, full())
			b := want.Marshal(c, d, 16384)
			if SizeOf(b) != len(b) || VersionOf(b) != want.Version {
				t.Errorf("%s: size %d of %d bytes", c, SizeOf(b), len(b))
			}
			got, err := Unmarshal(c, d, b)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s, direction %d:\n%+v, %v, want\n%+v", c, d, got, err, want)
			}
		}
	}
}

// An answer of status, byte for byte as the kernel gives it: the second target's distance
// counts from the first one, while in a request it counts from itself.
func TestBytes(t *testing.T) {
	m := &Message{Version: [3]uint32{4, 47, 0}, TargetCount: 2, Flags: ActivePresent, Dev: blk.Number{Major: 254, Minor: 256}, Name: "d",
		Targets: []Target{{0, 8, 0, "linear", "7:0 2048"}, {8, 1, 0, "zero", ""}}}
	b := m.Marshal(TableStatus, Answer, 1024)
	const head = "04000000" + "2f000000" + "00000000" + "a0010000" + "38010000" + "02000000" + "00000000" + "20000000" + "00000000" + "00000000" + "00fe100000000000" + "64"
	if got := hex.EncodeToString(b[:49]); got != head {
		t.Errorf("header\n%s, want\n%s", got, head)
	}
	first := strings.Repeat("00", 8) + "0800000000000000" + "00000000" + "38000000" + hex.EncodeToString([]byte("linear\x00\x00\x00\x00\x00\x00\x00\x00\x00\x007:0 2048\x00")) + strings.Repeat("00", 7)
	if got := hex.EncodeToString(b[312 : 312+56]); got != first {
		t.Errorf("first target\n%s, want\n%s", got, first)
	}
	if next := le.Uint32(b[312+56+20:]); next != 56+48 {
		t.Errorf("in an answer the second distance is %d", next)
	}
	b = m.Marshal(TableLoad, Request, 0)
	if next := le.Uint32(b[312+56+20:]); next != 48 {
		t.Errorf("in a request the second distance is %d", next)
	}
}

// An answer that does not fit has no data, and says so.
func TestBufferFull(t *testing.T) {
	m := only(TableStatus, Answer, full())
	size := len(m.Marshal(TableStatus, Answer, 1<<20))
	for _, n := range []int{HeaderSize, dataStart, size - 1} {
		b := m.Marshal(TableStatus, Answer, n)
		got, err := Unmarshal(TableStatus, Answer, b)
		if err != nil || got.Flags&BufferFull == 0 || got.Targets != nil {
			t.Errorf("in %d bytes: %+v, %v", n, got, err)
		}
	}
	if b := m.Marshal(TableStatus, Answer, size); Flags(le.Uint32(b[28:]))&BufferFull != 0 {
		t.Errorf("%d bytes do not fit in as many", size)
	}
}

func TestMalformed(t *testing.T) {
	good := only(TableLoad, Request, full()).Marshal(TableLoad, Request, 0)
	for what, b := range map[string][]byte{
		"a short header":         good[:HeaderSize-1],
		"data behind the end":    put32(good, 16, 1<<20),
		"a target that is cut":   good[:dataStart+30],
		"parameters without end": good[:dataStart+specSize+3],
		"a chain in place":       put32(good, dataStart+20, 0),
		"a chain to far away":    put32(good, dataStart+20, 1<<31),
		"more targets than are":  put32(good, 20, 3),
	} {
		if _, err := Unmarshal(TableLoad, Request, b); err == nil {
			t.Errorf("%s is accepted", what)
		}
	}
	if _, err := Unmarshal(GetTargetVersion+1, Request, good); err == nil {
		t.Error("an unknown command is accepted")
	}
}

func put32(b []byte, at int, v uint32) []byte {
	b = bytes.Clone(b)
	le.PutUint32(b[at:], v)
	return b
}

// Whatever the bytes are, what is understood of them can be written and understood again.
func FuzzUnmarshal(f *testing.F) {
	for c := Version; c.Known(); c++ {
		for _, d := range []Direction{Request, Answer} {
			f.Add(uint8(c), d == Answer, only(c, d, full()).Marshal(c, d, 1<<16))
		}
	}
	f.Fuzz(func(t *testing.T, number uint8, answer bool, b []byte) {
		c, d := Command(number), Request
		if answer {
			d = Answer
		}
		m, err := Unmarshal(c, d, b)
		if err != nil || m.Flags&BufferFull != 0 {
			return
		}
		again, err := Unmarshal(c, d, m.Marshal(c, d, 16*len(b)+1<<16))
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Errorf("%s: %+v becomes %+v, %v", c, m, again, err)
		}
	})
}
