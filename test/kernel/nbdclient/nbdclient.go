//go:build unix

// Package nbdclient is a small NBD client for tests: fixed newstyle handshake, simple replies, one request at a time.
//
// It shares no code with the server that it judges, and its errors are the errnos on the wire.
//
// The numbers are those of the NBD protocol document (NetworkBlockDevice/nbd, doc/proto.md); all fields are big-endian.
//
//	greeting   "NBDMAGIC" "IHAVEOPT" u16 flags              → u32 client flags
//	option     "IHAVEOPT" u32 option, u32 length, data      ← u64 magic, u32 option, u32 type, u32 length, data
//	request    u32 magic, u16 flags, u16 type, u64 cookie, u64 offset, u32 length, data of a write
//	reply      u32 magic, u32 error, u64 cookie, data of a read
package nbdclient

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"udm/test/kernel/conform"
)

const (
	greetMagic   = "NBDMAGICIHAVEOPT"
	optionMagic  = "IHAVEOPT"
	optReply     = 0x3e889045565a9
	requestMagic = 0x25609513
	replyMagic   = 0x67446698

	clientFlags = 1 | 2 // fixed newstyle, no zeroes
	optGo       = 7

	repAck        = 1
	repInfo       = 3
	repError      = 1 << 31
	repErrPolicy  = repError + 2
	repErrUnknown = repError + 6
	infoExport    = 0
	infoBlockSize = 3

	flagReadOnly = 1 << 1
	flagFlush    = 1 << 2
	flagTrim     = 1 << 5

	cmdRead       = 0
	cmdWrite      = 1
	cmdDisconnect = 2
	cmdFlush      = 3
	cmdTrim       = 4
	cmdZero       = 6

	maxReply = 1 << 16 // bytes of an option reply
)

// Conn is a connection to one export. It serves one goroutine.
type Conn struct {
	c     net.Conn
	size  uint64 // bytes
	flags uint16
	block uint32 // smallest block, bytes
}

// Dial connects to the export of a server on a Unix socket. An unknown export is ENOENT.
func Dial(socket, export string) (*Conn, error) {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	conn := &Conn{c: c, block: conform.SectorSize}
	if err := conn.handshake(export); err != nil {
		_ = c.Close()
		return nil, err
	}
	return conn, nil
}

func (c *Conn) handshake(export string) error {
	var greet [18]byte
	if _, err := io.ReadFull(c.c, greet[:]); err != nil {
		return err
	}
	if string(greet[:16]) != greetMagic {
		return fmt.Errorf("nbd greeting %q", greet[:16])
	}
	msg := binary.BigEndian.AppendUint32(nil, clientFlags)
	msg = append(msg, optionMagic...)
	msg = binary.BigEndian.AppendUint32(msg, optGo)
	msg = binary.BigEndian.AppendUint32(msg, uint32(4+len(export)+2+2))
	msg = binary.BigEndian.AppendUint32(msg, uint32(len(export)))
	msg = append(msg, export...)
	msg = binary.BigEndian.AppendUint16(msg, 1)
	msg = binary.BigEndian.AppendUint16(msg, infoBlockSize)
	if _, err := c.c.Write(msg); err != nil {
		return err
	}
	for {
		kind, data, err := c.optionReply()
		if err != nil {
			return err
		}
		switch {
		case kind == repAck:
			return nil
		case kind == repInfo:
			c.info(data)
		case kind == repErrUnknown:
			return syscall.ENOENT
		case kind == repErrPolicy:
			return syscall.EPERM
		default:
			return fmt.Errorf("nbd refuses: reply %#x %q", kind, data)
		}
	}
}

func (c *Conn) optionReply() (kind uint32, data []byte, err error) {
	var head [20]byte
	if _, err := io.ReadFull(c.c, head[:]); err != nil {
		return 0, nil, err
	}
	if binary.BigEndian.Uint64(head[:]) != optReply {
		return 0, nil, fmt.Errorf("nbd option reply begins with %x", head[:8])
	}
	n := binary.BigEndian.Uint32(head[16:])
	if n > maxReply {
		return 0, nil, fmt.Errorf("nbd option reply of %d bytes", n)
	}
	data = make([]byte, n)
	_, err = io.ReadFull(c.c, data)
	return binary.BigEndian.Uint32(head[12:]), data, err
}

func (c *Conn) info(data []byte) {
	if len(data) < 2 {
		return
	}
	switch kind := binary.BigEndian.Uint16(data); {
	case kind == infoExport && len(data) >= 12:
		c.size, c.flags = binary.BigEndian.Uint64(data[2:]), binary.BigEndian.Uint16(data[10:])
	case kind == infoBlockSize && len(data) >= 14:
		c.block = max(c.block, binary.BigEndian.Uint32(data[2:]))
	}
}

// request sends a request and waits for its reply; into takes the data of a read.
func (c *Conn) request(kind uint16, off, n int64, data, into []byte) error {
	if (off|n)%int64(c.block) != 0 {
		return syscall.EINVAL // as a block device says; the server would serve it
	}
	msg := c.header(kind, off, n)
	if _, err := c.c.Write(append(msg, data...)); err != nil {
		return err
	}
	var head [16]byte
	if _, err := io.ReadFull(c.c, head[:]); err != nil {
		return err
	}
	if binary.BigEndian.Uint32(head[:]) != replyMagic {
		return fmt.Errorf("nbd reply begins with %x", head[:4])
	}
	if code := binary.BigEndian.Uint32(head[4:]); code != 0 {
		return syscall.Errno(code)
	}
	_, err := io.ReadFull(c.c, into)
	return err
}

func (c *Conn) header(kind uint16, off, n int64) []byte {
	msg := binary.BigEndian.AppendUint32(nil, requestMagic)
	msg = binary.BigEndian.AppendUint16(msg, 0)
	msg = binary.BigEndian.AppendUint16(msg, kind)
	msg = binary.BigEndian.AppendUint64(msg, 1)
	msg = binary.BigEndian.AppendUint64(msg, uint64(off))
	return binary.BigEndian.AppendUint32(msg, uint32(n))
}

// change is a request that writes. To a read-only export it is EPERM at once, as for a write to a read-only block device.
func (c *Conn) change(kind uint16, off, n int64, data []byte) error {
	if c.flags&flagReadOnly != 0 {
		return syscall.EPERM
	}
	return c.request(kind, off, n, data, nil)
}

// Read implements conform.Device.
func (c *Conn) Read(buf []byte, off int64) error {
	return c.request(cmdRead, off, int64(len(buf)), nil, buf)
}

// Write implements conform.Device.
func (c *Conn) Write(buf []byte, off int64) error {
	return c.change(cmdWrite, off, int64(len(buf)), buf)
}

// Discard implements conform.Device; ENOTSUP where the export cannot.
func (c *Conn) Discard(off, n int64) error {
	if c.flags&(flagTrim|flagReadOnly) == 0 {
		return syscall.ENOTSUP
	}
	return c.change(cmdTrim, off, n, nil)
}

// Zero implements conform.Device.
func (c *Conn) Zero(off, n int64) error { return c.change(cmdZero, off, n, nil) }

// Flush implements conform.Device; nothing is to be done where the export has no cache.
func (c *Conn) Flush() error {
	if c.flags&flagFlush == 0 {
		return nil
	}
	return c.request(cmdFlush, 0, 0, nil, nil)
}

// Limits implements conform.Device.
func (c *Conn) Limits() (conform.Limits, error) {
	return conform.Limits{
		Sectors:  int64(c.size / conform.SectorSize),
		Block:    int(c.block),
		ReadOnly: c.flags&flagReadOnly != 0,
		Discard:  c.flags&flagTrim != 0,
	}, nil
}

// Close takes leave and waits until the server has closed the connection, so that the device is not open any more.
func (c *Conn) Close() error {
	_, err := c.c.Write(c.header(cmdDisconnect, 0, 0))
	if err == nil {
		var rest [1]byte
		if _, err = c.c.Read(rest[:]); errors.Is(err, io.EOF) {
			err = nil
		}
	}
	return errors.Join(err, c.c.Close())
}
