package dmioctl

import (
	"bytes"
	"encoding/binary"
	"errors"

	"udm/blk"
)

// Sizes of the parts of struct dm_ioctl.
const (
	HeaderSize = 305 // up to the end of uuid
	dataStart  = 312
	nameSize   = 128
	uuidSize   = 129
)

// MaxSize is the largest call that is read. (The kernel has no such limit but that of its
// memory.)
const MaxSize = 32 << 20

// Message is one call, or the answer to it, in Go's types. Of the fields from Targets on
// it has those that the command's data have.
type Message struct {
	Version     [3]uint32
	TargetCount uint32
	OpenCount   int32
	Flags       Flags
	Event       uint32
	Dev         blk.Number // 0:0: none
	Name, UUID  string

	Targets  []Target
	Text     string // a new name or uuid, a geometry, a message or its answer
	Sector   uint64 // of a message
	Devices  []Device
	Deps     []blk.Number
	Versions []TargetVersion
}

type (
	// Target is a line of a table, or of its status.
	Target struct {
		Start, Length uint64
		Status        int32
		Type, Params  string
	}
	// Device is an entry of the list of devices.
	Device struct {
		Dev      blk.Number
		Event    uint32
		Name     string
		UUID     string
		WithUUID bool // the caller has asked for uuids
	}
	// TargetVersion is an entry of the list of target types.
	TargetVersion struct {
		Version [3]uint32
		Name    string
	}
)

// ErrMalformed is the error of bytes that the kernel refuses with EINVAL.
var ErrMalformed = errors.New("not a well-formed device-mapper call")

var le = binary.LittleEndian

// SizeOf returns the size that a call says it has, from its first 16 bytes.
func SizeOf(b []byte) int { return int(le.Uint32(b[12:])) }

// VersionOf returns the version of a call, from its first 12 bytes.
func VersionOf(b []byte) [3]uint32 {
	return [3]uint32{le.Uint32(b), le.Uint32(b[4:]), le.Uint32(b[8:])}
}

// Unmarshal parses a call; len(b) is its size.
func Unmarshal(c Command, d Direction, b []byte) (*Message, error) {
	if !c.Known() || len(b) < HeaderSize {
		return nil, ErrMalformed
	}
	m := &Message{
		Version: VersionOf(b), TargetCount: le.Uint32(b[20:]), OpenCount: int32(le.Uint32(b[24:])),
		Flags: Flags(le.Uint32(b[28:])), Event: le.Uint32(b[32:]), Dev: number(le.Uint64(b[40:])),
		Name: upToNUL(b[48 : 48+nameSize-1]), UUID: upToNUL(b[48+nameSize : HeaderSize-1]),
	}
	f := commands[c].data[d]
	if f.parse == nil || d == Answer && (m.Flags&BufferFull != 0 || len(b) == HeaderSize) {
		return m, nil
	}
	start := le.Uint32(b[16:])
	if int64(start) > int64(len(b)) {
		return nil, ErrMalformed
	}
	return m, f.parse(m, b[start:])
}

// Marshal returns the bytes of a call. An answer takes at most size bytes, the size of
// the request: where its data do not fit it has none, and the flag BufferFull. For a
// request size is what the answer may take, at least.
func (m *Message) Marshal(c Command, d Direction, size int) []byte {
	b := make([]byte, dataStart, max(dataStart, size))
	flags, n := m.Flags, HeaderSize
	if f := commands[c].data[d]; f.append != nil {
		if b = f.append(m, b); len(b) > dataStart {
			n = len(b)
		}
	}
	if d == Answer && n > size && n > HeaderSize {
		flags, n = flags|BufferFull, dataStart
	}
	if d == Request {
		n = max(len(b), size)
		b = append(b, make([]byte, n-len(b))...)
	}
	m.header(b, flags, n)
	return b[:n]
}

func (m *Message) header(b []byte, flags Flags, size int) {
	for i, v := range m.Version {
		le.PutUint32(b[4*i:], v)
	}
	for i, v := range []uint32{uint32(size), dataStart, m.TargetCount, uint32(m.OpenCount), uint32(flags), m.Event} {
		le.PutUint32(b[12+4*i:], v)
	}
	le.PutUint64(b[40:], huge(m.Dev))
	copy(b[48:48+nameSize-1], m.Name)
	copy(b[48+nameSize:HeaderSize-1], m.UUID)
}

// number and huge convert the kernel's form of device numbers.
func number(dev uint64) blk.Number {
	return blk.Number{Major: uint32(dev&0xfff00) >> 8, Minor: uint32(dev&0xff) | uint32(dev>>12)&0xfff00}
}

func huge(n blk.Number) uint64 {
	return uint64(n.Minor&0xff) | uint64(n.Major&0xfff)<<8 | uint64(n.Minor&0xfff00)<<12
}

func upToNUL(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
