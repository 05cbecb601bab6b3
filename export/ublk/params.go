package ublk

import (
	"encoding/binary"
	"math/bits"

	"udm/blk"
)

var ne = binary.NativeEndian

// Info holds the parameters of a block device.
type Info struct {
	ID       uint32 // N in /dev/ublkbN
	Queues   uint16
	Depth    uint16 // requests in flight per queue
	State    State
	MaxBytes uint32 // of a read or write
	Flags    uint64
	Mark     uint64 // an arbitrary value set by the creator
}

// State is the state of a block device.
type State uint16

const (
	Dead     State = 0 // has no disk
	Live     State = 1 // served
	Quiesced State = 2 // requests wait for a new server
)

// Flags of a device.
const (
	flagRecovery = 1 << 3
	flagReissue  = 1 << 4
	flagIoctl    = 1 << 6
	flagUserCopy = 1 << 7 // the server copies data
	flagResize   = 1 << 10
)

const infoSize = 64

func (i *Info) encode() []byte {
	p := make([]byte, infoSize)
	ne.PutUint16(p[0:], i.Queues)
	ne.PutUint16(p[2:], i.Depth)
	ne.PutUint16(p[4:], uint16(i.State))
	ne.PutUint32(p[8:], i.MaxBytes)
	ne.PutUint32(p[12:], i.ID)
	ne.PutUint64(p[24:], i.Flags)
	ne.PutUint64(p[32:], i.Mark)
	return p
}

func decodeInfo(p []byte) Info {
	return Info{
		Queues: ne.Uint16(p[0:]), Depth: ne.Uint16(p[2:]), State: State(ne.Uint16(p[4:])), MaxBytes: ne.Uint32(p[8:]),
		ID: ne.Uint32(p[12:]), Flags: ne.Uint64(p[24:]), Mark: ne.Uint64(p[32:]),
	}
}

const (
	paramsSize = 60

	paramBasic   = 1 << 0
	paramDiscard = 1 << 1

	attrReadOnly      = 1 << 0
	attrRotational    = 1 << 1
	attrVolatileCache = 1 << 2
	attrFUA           = 1 << 3
)

// params encodes limits as struct ublk_params, with only the basic and discard parameters.
func params(l *blk.Limits, maxBytes uint32) []byte {
	p := make([]byte, paramsSize)
	ne.PutUint32(p[0:], paramsSize)
	ne.PutUint32(p[4:], paramBasic)
	ne.PutUint32(p[8:], attributes(l))
	logical := shift(l.LogicalBlock)
	p[12], p[13] = logical, max(logical, shift(l.PhysicalBlock))
	p[14], p[15] = shift(l.OptIO), max(logical, shift(l.MinIO))
	sectors := maxBytes / blk.SectorSize
	if l.MaxSectors != 0 {
		sectors = max(min(sectors, l.MaxSectors), 8) // the driver's minimum is a page
	}
	ne.PutUint32(p[16:], sectors)
	ne.PutUint64(p[24:], l.Size)
	if l.MaxDiscard != 0 || l.MaxWriteZeroes != 0 {
		ne.PutUint32(p[4:], paramBasic|paramDiscard)
		ne.PutUint32(p[44:], max(l.DiscardGranularity, l.LogicalBlock))
		ne.PutUint32(p[48:], longest(l.MaxDiscard, l))
		ne.PutUint32(p[52:], longest(l.MaxWriteZeroes, l))
		ne.PutUint16(p[56:], 1)
	}
	return p
}

func attributes(l *blk.Limits) (a uint32) {
	for bit, has := range map[uint32]bool{
		attrReadOnly: l.ReadOnly, attrRotational: l.Rotational, attrVolatileCache: l.VolatileCache, attrFUA: l.VolatileCache,
	} {
		if has {
			a |= bit
		}
	}
	return a
}

// shift returns the log2 of n, rounded down, or 0 if n is 0.
func shift(n uint32) uint8 { return uint8(max(bits.Len32(n), 1) - 1) }

// longest limits the sectors of a discard or zero range to what the kernel can count in bytes
// with 32 bits, rounded down to whole blocks.
func longest(sectors uint64, l *blk.Limits) uint32 {
	const most = 1<<23 - 1
	block := uint64(max(l.DiscardGranularity, l.LogicalBlock) / blk.SectorSize)
	n := min(sectors, most)
	return uint32(max(n-n%max(block, 1), min(sectors, block)))
}
