// Package blkioctl has the ioctls of block devices, and the answers to those that only
// ask: one table, on every system. It does no I/O.
package blkioctl

import "encoding/binary"

// Type is the ioctl type of most of them, the second byte of the request number.
const Type = 0x12

// The requests that do something, with the kernel's numbers.
const (
	SetReadOnly   uint32 = 0x125d
	Reread        uint32 = 0x125f // the partition table
	Flush         uint32 = 0x1261
	SetReadAhead  uint32 = 0x1262
	Partition     uint32 = 0x1269
	Discard       uint32 = 0x1277
	SecureDiscard uint32 = 0x127d
	ZeroOut       uint32 = 0x127f
	SetBlockSize  uint32 = 0x40081271
)

// Device is what the answers depend on. Sizes are in bytes.
type Device struct {
	Size               uint64
	ReadOnly           bool
	LogicalBlock       uint32
	PhysicalBlock      uint32
	MinIO, OptIO       uint32
	DiscardGranularity uint32
	Rotational         bool
	ReadAhead          uint64 // sectors
}

const (
	softBlock  = 4096 // BLKBSZGET
	maxSectors = 2560 // BLKSECTGET
)

var le = binary.LittleEndian

func word(v uint32) []byte { return le.AppendUint32(nil, v) }
func long(v uint64) []byte { return le.AppendUint64(nil, v) }
func half(v uint16) []byte { return le.AppendUint16(nil, v) }

// answers has the requests that ask.
var answers = map[uint32]func(Device) []byte{
	0x125e:     func(d Device) []byte { return word(flag(d.ReadOnly)) },           // BLKROGET
	0x1260:     func(d Device) []byte { return long(d.Size / 512) },               // BLKGETSIZE
	0x1263:     func(d Device) []byte { return long(d.ReadAhead) },                // BLKRAGET
	0x1265:     func(d Device) []byte { return long(d.ReadAhead) },                // BLKFRAGET
	0x1267:     func(Device) []byte { return half(maxSectors) },                   // BLKSECTGET
	0x1268:     func(d Device) []byte { return word(d.LogicalBlock) },             // BLKSSZGET
	0x1278:     func(d Device) []byte { return word(d.MinIO) },                    // BLKIOMIN
	0x1279:     func(d Device) []byte { return word(d.OptIO) },                    // BLKIOOPT
	0x127a:     func(Device) []byte { return word(0) },                            // BLKALIGNOFF
	0x127b:     func(d Device) []byte { return word(d.PhysicalBlock) },            // BLKPBSZGET
	0x127c:     func(Device) []byte { return word(0) },                            // BLKDISCARDZEROES
	0x127e:     func(d Device) []byte { return half(uint16(flag(d.Rotational))) }, // BLKROTATIONAL
	0x80081270: func(Device) []byte { return word(softBlock) },                    // BLKBSZGET
	0x80081272: func(d Device) []byte { return long(d.Size) },                     // BLKGETSIZE64
}

func flag(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// Answer returns what the kernel writes to the argument of a request that asks; false
// for any other request.
func Answer(request uint32, d Device) ([]byte, bool) {
	f := answers[request]
	if f == nil {
		return nil, false
	}
	return f(d), true
}

// RangeSize is the size of the argument of Discard, SecureDiscard and ZeroOut.
const RangeSize = 16

// Range parses this argument. It is false if the kernel refuses it with EINVAL.
func (d Device) Range(b []byte) (offset, length uint64, ok bool) {
	offset, length = le.Uint64(b), le.Uint64(b[8:])
	end := offset + length
	return offset, length, length > 0 && (offset|length)%uint64(d.LogicalBlock) == 0 && end >= offset && end <= d.Size
}
