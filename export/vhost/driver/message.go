//go:build linux

package driver

import (
	"encoding/binary"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"udm/export/internal/virtq"
)

// The requests that the driver needs; package vhost describes all.
const (
	getFeatures         = 1
	setFeatures         = 2
	setOwner            = 3
	setMemTable         = 5
	setVringNum         = 8
	setVringAddr        = 9
	setVringBase        = 10
	setVringKick        = 12
	setVringCall        = 13
	getProtocolFeatures = 15
	setProtocolFeatures = 16
	setVringEnable      = 18
	getInflightFD       = 31
	setInflightFD       = 32

	version   = 1
	needReply = 8
	headerLen = 12

	featFlush    = 1 << 9
	featQueues   = 1 << 12
	featIndirect = 1 << 28
	featEventIdx = 1 << 29
	featProtocol = 1 << 30
	featVersion1 = 1 << 32
	featPacked   = 1 << 34

	protoQueues   = 1 << 0
	protoReplyAck = 1 << 3
	protoInflight = 1 << 12
)

var order = binary.NativeEndian

func longs(v ...uint64) (b []byte) {
	for _, x := range v {
		b = order.AppendUint64(b, x)
	}
	return b
}

func words(v ...int) (b []byte) {
	for _, x := range v {
		b = order.AppendUint32(b, uint32(x))
	}
	return b
}

// negotiate takes the features that it knows of those that the server offers, and shares the
// memory.
func (d *Disk) negotiate(o Options) (f virtq.Features, err error) {
	if err = d.send(setOwner, 0, nil); err != nil {
		return f, err
	}
	offered, err := d.ask(getFeatures)
	if err != nil {
		return f, err
	}
	protocol, err := d.ask(getProtocolFeatures)
	if err != nil {
		return f, err
	}
	want := uint64(featFlush | featQueues | featIndirect | featEventIdx | featProtocol | featVersion1)
	if o.Packed {
		want |= featPacked
	}
	features := want & offered
	switch {
	case protocol&protoReplyAck == 0:
		return f, fmt.Errorf("vhost driver: the server does not acknowledge")
	case o.Packed && features&featPacked == 0:
		return f, fmt.Errorf("vhost driver: the server has no packed rings")
	case o.Reconnects && protocol&protoInflight == 0:
		return f, fmt.Errorf("vhost driver: the server does not record what is in flight")
	}
	if err = d.send(setProtocolFeatures, 0, longs(protocol&(protoQueues|protoReplyAck|protoInflight))); err != nil {
		return f, err
	}
	if err = d.tell(setFeatures, longs(features)); err != nil {
		return f, err
	}
	f = virtq.Features{EventIdx: features&featEventIdx != 0, Indirect: features&featIndirect != 0, Packed: o.Packed}
	region := append(longs(1), longs(guestAt, uint64(len(d.mem)), userAt, 0)...)
	return f, d.tell(setMemTable, region, d.fd)
}

func (d *Disk) send(request uint32, flags uint32, payload []byte, files ...int) error {
	b := append(words(int(request), int(version|flags), len(payload)), payload...)
	var oob []byte
	if len(files) > 0 {
		oob = unix.UnixRights(files...)
	}
	_, _, err := d.conn.WriteMsgUnix(b, oob, nil)
	return err
}

// answer reads the number that answers a request.
func (d *Disk) answer(request uint32) (uint64, error) {
	var b [headerLen + 8]byte
	if _, err := io.ReadFull(d.conn, b[:]); err != nil {
		return 0, fmt.Errorf("vhost driver: request %d: %w", request, err)
	}
	return order.Uint64(b[headerLen:]), nil
}

func (d *Disk) ask(request uint32) (uint64, error) {
	if err := d.send(request, 0, nil); err != nil {
		return 0, err
	}
	return d.answer(request)
}

// tell sends a request that is to be acknowledged.
func (d *Disk) tell(request uint32, payload []byte, files ...int) error {
	if err := d.send(request, needReply, payload, files...); err != nil {
		return err
	}
	refused, err := d.answer(request)
	if err == nil && refused != 0 {
		err = fmt.Errorf("vhost driver: the server refuses request %d", request)
	}
	return err
}

// record is the server's memory of requests in flight.
type record struct {
	fd          int
	description [20]byte // length 8, offset 8, rings 2, entries 2
}

func (d *Disk) getRecord() error {
	order.PutUint16(d.record.description[16:], uint16(d.o.Queues))
	order.PutUint16(d.record.description[18:], uint16(d.o.size()))
	if err := d.send(getInflightFD, 0, d.record.description[:]); err != nil {
		return err
	}
	b, oob := make([]byte, headerLen+20), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := d.conn.ReadMsgUnix(b, oob)
	if err != nil || n != len(b) {
		return fmt.Errorf("vhost driver: %d bytes of a record: %w", n, err)
	}
	list, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(list) != 1 {
		return fmt.Errorf("vhost driver: a record of %d files: %w", len(list), err)
	}
	fds, err := unix.ParseUnixRights(&list[0])
	if err != nil {
		return err
	}
	d.record.fd = fds[0]
	copy(d.record.description[:], b[headerLen:])
	return nil
}

func (d *Disk) setRecord() error {
	return d.tell(setInflightFD, d.record.description[:], d.record.fd)
}
