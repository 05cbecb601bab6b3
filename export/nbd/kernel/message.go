// Package kernel connects the nbd driver of the Linux kernel to a socket by
// generic netlink. The driver is the client from then on; serve the socket's
// other end with [nbd.Server]. The handshake must be complete before:
// [nbdclient.Negotiate].
//
// A message is in native byte order. An attribute begins at a multiple of four
// bytes, and its length excludes the padding.
//
//	0  u32  length of the message    nlmsghdr, include/uapi/linux/netlink.h
//	4  u16  family
//	6  u16  flags
//	8  u32  sequence number
//	12 u32  port
//	16 u8   command                  genlmsghdr, include/uapi/linux/genetlink.h
//	17 u8   version
//	18 u16  0
//	20      attributes: u16 length, u16 kind, value
//
// An answer has the request's sequence number. The last one is an error message,
// whose body begins with an i32: 0 or a negative errno. Commands and attributes
// are those of include/uapi/linux/nbd-netlink.h; drivers/block/nbd.c implements
// them.
//
// [nbd.Server]: https://pkg.go.dev/udm/export/nbd#Server
// [nbdclient.Negotiate]: https://pkg.go.dev/udm/blk/nbdclient#Negotiate
package kernel

import (
	"encoding/binary"
	"errors"
	"syscall"

	"udm/internal/nbd/proto"
)

// Config describes a /dev/nbdN to create.
type Config struct {
	Index   int    // N; negative: any free one
	Size    uint64 // bytes
	Block   uint32 // bytes of a logical block, a power of two, 512 to the kernel's page size
	Flags   uint16 // transmission flags of the handshake
	Backend string // content of /sys/block/nbdN/backend, since Linux 5.14
	Socket  int    // a descriptor; the driver takes the socket, not the descriptor
	// Wait is how many seconds requests wait for [Driver.Reconnect] if the server closes the
	// connection; then they fail. 0: at once, except those that the server has not answered.
	Wait uint64
}

var ne = binary.NativeEndian

const (
	headerSize = 16 // nlmsghdr
	genSize    = 4  // genlmsghdr
	attrHeader = 4

	flagRequest = 1
	flagAck     = 4
	typeError   = 2 // NLMSG_ERROR
	nested      = 1 << 15

	ctrlFamily     = 16 // GENL_ID_CTRL
	ctrlVersion    = 1
	ctrlGetFamily  = 3
	ctrlFamilyID   = 1
	ctrlFamilyName = 2

	driverName    = "nbd"
	driverVersion = 1

	cmdConnect     = 1
	cmdDisconnect  = 2
	cmdReconfigure = 3

	attrIndex     = 1 // u32
	attrSize      = 2 // u64, bytes
	attrBlockSize = 3 // u64, bytes
	attrFlags     = 5 // u64
	attrSockets   = 7
	attrWait      = 8  // u64, seconds
	attrBackend   = 10 // string

	sockItem = 1 // in attrSockets
	sockFD   = 1 // u32, in sockItem
)

// request encodes a complete message.
func request(family uint16, cmd, version uint8, seq uint32, attrs []byte) []byte {
	p := ne.AppendUint32(nil, uint32(headerSize+genSize+len(attrs)))
	p = ne.AppendUint16(p, family)
	p = ne.AppendUint16(p, flagRequest|flagAck)
	p = ne.AppendUint32(p, seq)
	p = ne.AppendUint32(p, 0)
	p = append(p, cmd, version, 0, 0)
	return append(p, attrs...)
}

// attr appends an attribute.
func attr(p []byte, kind uint16, value []byte) []byte {
	p = ne.AppendUint16(p, uint16(attrHeader+len(value)))
	p = ne.AppendUint16(p, kind)
	p = append(p, value...)
	return append(p, make([]byte, -len(p)&3)...)
}

func attr32(p []byte, kind uint16, v uint32) []byte {
	return attr(p, kind, ne.AppendUint32(nil, v))
}

func attr64(p []byte, kind uint16, v uint64) []byte {
	return attr(p, kind, ne.AppendUint64(nil, v))
}

func attrString(p []byte, kind uint16, s string) []byte {
	return attr(p, kind, append([]byte(s), 0))
}

// connectAttrs are the attributes of cmdConnect. They set no timeout, so a
// request may wait as long as its device does. They clear the multi-conn flag,
// since there is only one connection.
func (c *Config) connectAttrs() []byte {
	var p []byte
	if c.Index >= 0 {
		p = attr32(p, attrIndex, uint32(c.Index))
	}
	p = attr64(p, attrSize, c.Size)
	p = attr64(p, attrBlockSize, uint64(c.Block))
	p = attr64(p, attrFlags, uint64(c.Flags&^proto.FlagMultiConn))
	if c.Wait != 0 {
		p = attr64(p, attrWait, c.Wait)
	}
	return attrString(c.socketAttr(p), attrBackend, c.Backend)
}

func (c *Config) socketAttr(p []byte) []byte {
	item := attr32(nil, sockFD, uint32(c.Socket))
	return attr(p, attrSockets|nested, attr(nil, sockItem|nested, item))
}

// reconnectAttrs are the attributes of cmdReconfigure with another socket.
func (c *Config) reconnectAttrs() []byte {
	p := attr32(nil, attrIndex, uint32(c.Index))
	p = attr64(p, attrSize, c.Size)
	return attrString(c.socketAttr(p), attrBackend, c.Backend)
}

// resizeAttrs are the attributes of cmdReconfigure.
func resizeAttrs(index uint32, size uint64, backend string) []byte {
	p := attr32(nil, attrIndex, index)
	p = attr64(p, attrSize, size)
	return attrString(p, attrBackend, backend)
}

var errMalformed = errors.New("malformed netlink message")

// answer collects the answer to a request.
type answer struct {
	seq   uint32
	attrs map[uint16][]byte
}

// take processes a datagram, which may hold several messages, and reports whether
// it contained the last one. The error is the kernel's errno.
func (a *answer) take(p []byte) (last bool, err error) {
	for len(p) > 0 {
		if len(p) < headerSize {
			return false, errMalformed
		}
		n := uint64(ne.Uint32(p))
		if n < headerSize+genSize || n > uint64(len(p)) {
			return false, errMalformed
		}
		m := p[:n]
		p = p[min((n+3)&^3, uint64(len(p))):]
		switch {
		case ne.Uint32(m[8:]) != a.seq:
		case ne.Uint16(m[4:]) == typeError:
			if e := int32(ne.Uint32(m[headerSize:])); e != 0 {
				return true, syscall.Errno(-e)
			}
			return true, nil
		default:
			if a.attrs, err = parse(m[headerSize+genSize:]); err != nil {
				return false, err
			}
		}
	}
	return false, nil
}

// parse returns attributes by kind.
func parse(p []byte) (map[uint16][]byte, error) {
	attrs := make(map[uint16][]byte)
	for len(p) >= attrHeader {
		n := int(ne.Uint16(p))
		if n < attrHeader || n > len(p) {
			return nil, errMalformed
		}
		attrs[ne.Uint16(p[2:])&^nested] = p[attrHeader:n]
		p = p[min((n+3)&^3, len(p)):]
	}
	return attrs, nil
}
