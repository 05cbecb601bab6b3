//go:build linux

package vhost

import (
	"encoding/binary"

	"udm/blk"
	"udm/export/internal/virtq"
)

// Offered device features, by bit.
const (
	featSizeMax     = 1 << 1
	featSegMax      = 1 << 2
	featReadOnly    = 1 << 5
	featBlockSize   = 1 << 6
	featFlush       = 1 << 9
	featTopology    = 1 << 10
	featWriteback   = 1 << 11 // the guest may choose between write-back and write-through
	featQueues      = 1 << 12
	featDiscard     = 1 << 13
	featWriteZeroes = 1 << 14
	featLogAll      = 1 << 26 // pages written are logged; between front end and back end only
	featIndirect    = 1 << 28
	featEventIdx    = 1 << 29
	featProtocol    = 1 << 30 // between front end and back end only
	featVersion1    = 1 << 32
	featPacked      = 1 << 34
)

// Offered protocol features.
const (
	protoQueues   = 1 << 0
	protoLog      = 1 << 1
	protoReplyAck = 1 << 3
	protoBackend  = 1 << 5
	protoConfig   = 1 << 9
	protoInflight = 1 << 12
	protoReset    = 1 << 13
	protoSlots    = 1 << 15
	protoStatus   = 1 << 16

	protoOffered = protoQueues | protoLog | protoReplyAck | protoBackend | protoConfig | protoInflight | protoReset | protoSlots | protoStatus
)

// Bounds of a request. A guest that respects the config space sends at most
// segMax*sizeMax bytes.
const (
	segMax     = 126 // with header and status they fill a ring of 128
	sizeMax    = 64 << 10
	maxRequest = 16 << 20 // bytes
	maxRange   = 1 << 22  // sectors of one discard or write-zeroes
)

// features returns the features of a device.
func features(l *blk.Limits, readOnly bool) uint64 {
	f := uint64(featSizeMax | featSegMax | featBlockSize | featTopology | featQueues | featWriteZeroes | featLogAll | featIndirect | featProtocol | featVersion1 | featPacked)
	if readOnly {
		f = f&^featWriteZeroes | featReadOnly
	} else if l.MaxDiscard != 0 {
		f |= featDiscard
	}
	if l.VolatileCache {
		f |= featFlush | featWriteback
	}
	if virtq.EventIdx() {
		f |= featEventIdx
	}
	return f
}

// configLen is the length of struct virtio_blk_config up to the offered features.
const configLen = 60

// writebackAt is the offset of the byte that the guest may write: 1 for write-back, 0 for
// write-through.
const writebackAt = 32

// configSpace is the config space of a device (virtio 1.2, 5.2.4).
func configSpace(l *blk.Limits, queues int, writeback bool) (c [configLen]byte) {
	le := binary.LittleEndian
	le.PutUint64(c[0:], l.Size)
	le.PutUint32(c[8:], sizeMax)
	le.PutUint32(c[12:], segMax)
	le.PutUint32(c[20:], l.LogicalBlock)
	for l.PhysicalBlock>>c[24] > l.LogicalBlock {
		c[24]++ // log2 of logical blocks per physical block
	}
	le.PutUint16(c[26:], uint16(min(l.MinIO/l.LogicalBlock, 1<<16-1)))
	le.PutUint32(c[28:], l.OptIO/l.LogicalBlock)
	if writeback {
		c[writebackAt] = 1
	}
	le.PutUint16(c[34:], uint16(queues))
	le.PutUint32(c[36:], maxRange)
	le.PutUint32(c[40:], 1)
	le.PutUint32(c[44:], max(l.DiscardGranularity, l.LogicalBlock)/blk.SectorSize)
	le.PutUint32(c[48:], maxRange)
	le.PutUint32(c[52:], 1)
	c[56] = 1 // write-zeroes may unmap
	return c
}
