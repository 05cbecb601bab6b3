package proto

import "encoding/binary"

var be = binary.BigEndian

// Request is a parsed request header. Length counts payload bytes for a write or
// with CmdFlagPayloadLen, otherwise bytes of the export.
type Request struct {
	Flags  uint16
	Cmd    Cmd
	Cookie uint64
	Offset uint64 // bytes
	Length uint64 // bytes
}

// ParseRequest decodes p, of RequestSize or, if ext, ExtRequestSize bytes, and
// reports whether the magic number is right.
func ParseRequest(p []byte, ext bool) (r Request, ok bool) {
	magic := uint32(MagicRequest)
	r.Flags, r.Cmd = be.Uint16(p[4:]), Cmd(be.Uint16(p[6:]))
	r.Cookie, r.Offset = be.Uint64(p[8:]), be.Uint64(p[16:])
	if ext {
		magic, r.Length = MagicExtRequest, be.Uint64(p[24:])
	} else {
		r.Length = uint64(be.Uint32(p[24:]))
	}
	return r, be.Uint32(p) == magic
}

// Append encodes r.
func (r Request) Append(p []byte, ext bool) []byte {
	magic := uint32(MagicRequest)
	if ext {
		magic = MagicExtRequest
	}
	p = be.AppendUint32(p, magic)
	p = be.AppendUint16(p, r.Flags)
	p = be.AppendUint16(p, uint16(r.Cmd))
	p = be.AppendUint64(p, r.Cookie)
	p = be.AppendUint64(p, r.Offset)
	if ext {
		return be.AppendUint64(p, r.Length)
	}
	return be.AppendUint32(p, uint32(r.Length))
}

// PutSimple encodes a simple reply in p.
func PutSimple(p []byte, err Errno, cookie uint64) {
	be.PutUint32(p, MagicSimple)
	be.PutUint32(p[4:], uint32(err))
	be.PutUint64(p[8:], cookie)
}

// PutStructured encodes the header of a structured chunk in p.
func PutStructured(p []byte, flags uint16, chunk Chunk, cookie uint64, length uint32) {
	be.PutUint32(p, MagicStructured)
	be.PutUint16(p[4:], flags)
	be.PutUint16(p[6:], uint16(chunk))
	be.PutUint64(p[8:], cookie)
	be.PutUint32(p[16:], length)
}

// PutExtended encodes the header of an extended chunk in p.
func PutExtended(p []byte, flags uint16, chunk Chunk, cookie, offset, length uint64) {
	be.PutUint32(p, MagicExtReply)
	be.PutUint16(p[4:], flags)
	be.PutUint16(p[6:], uint16(chunk))
	be.PutUint64(p[8:], cookie)
	be.PutUint64(p[16:], offset)
	be.PutUint64(p[24:], length)
}
