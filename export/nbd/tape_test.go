package nbd_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"udm/blk"
	"udm/blk/memdev"
	"udm/export"
	"udm/export/nbd"
	"udm/internal/nbd/proto"
)

var be = binary.BigEndian

// tape is a connection to a recorded client: the server reads in and writes out.
type tape struct {
	in  bytes.Buffer // sent by the client
	out bytes.Buffer // sent by the server

	mode  string            // simple, structured or extended
	reads map[uint64]uint64 // lengths of reads by cookie, to tell simple replies apart
	next  uint64            // cookie
}

func (t *tape) Read(p []byte) (int, error)  { return t.in.Read(p) }
func (t *tape) Write(p []byte) (int, error) { return t.out.Write(p) }

// newTape starts with the client's flags.
func newTape(flags uint32) *tape {
	t := &tape{mode: "simple", reads: make(map[uint64]uint64)}
	t.in.Write(be.AppendUint32(nil, flags))
	return t
}

func (t *tape) option(o proto.Option, data ...[]byte) *tape {
	all := bytes.Join(data, nil)
	p := be.AppendUint64(nil, proto.MagicOption)
	p = be.AppendUint32(p, uint32(o))
	t.in.Write(be.AppendUint32(p, uint32(len(all))))
	t.in.Write(all)
	return t
}

func str(s string) []byte { return append(be.AppendUint32(nil, uint32(len(s))), s...) }

func u16s(v ...uint16) (p []byte) {
	for _, x := range v {
		p = be.AppendUint16(p, x)
	}
	return p
}

func u32(v uint32) []byte { return be.AppendUint32(nil, v) }

// attach negotiates mode and sends GO.
func (t *tape) attach(mode, name string) *tape {
	t.mode = mode
	switch mode {
	case "structured":
		t.option(proto.OptStructuredReply)
	case "extended":
		t.option(proto.OptExtendedHeaders)
	}
	if mode != "simple" {
		t.option(proto.OptSetMetaContext, str(name), u32(1), str(proto.ContextAllocation))
	}
	return t.option(proto.OptGo, str(name), u16s(0))
}

func (t *tape) request(c proto.Cmd, flags uint16, offset, length uint64, payload ...byte) *tape {
	t.next++
	if t.mode == "extended" && c == proto.CmdWrite {
		flags |= proto.CmdFlagPayloadLen
	}
	r := proto.Request{Flags: flags, Cmd: c, Cookie: t.next, Offset: offset, Length: length}
	t.in.Write(r.Append(nil, t.mode == "extended"))
	t.in.Write(payload)
	if c == proto.CmdRead {
		t.reads[t.next] = length
	}
	return t
}

// play runs the session on a server and returns the server's messages as text.
func (t *tape) play(tb testing.TB, cfg nbd.Config) (said []string, err error) {
	tb.Helper()
	s, err := nbd.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	defer s.Close()
	err = s.ServeConn(t)
	said, derr := t.decode(t.out.Bytes())
	if derr != nil {
		tb.Fatalf("the server said nonsense: %v after %q", derr, said)
	}
	return said, err
}

var repNames = map[proto.OptReply]string{
	proto.RepAck: "ack", proto.RepServer: "server", proto.RepInfo: "info", proto.RepMetaContext: "context",
	proto.RepErrUnsup: "unsup", proto.RepErrPolicy: "policy", proto.RepErrInvalid: "invalid",
	proto.RepErrTLSReqd: "tls-reqd", proto.RepErrUnknown: "unknown", proto.RepErrShutdown: "shutdown",
	proto.RepErrTooBig: "too-big", proto.RepErrExtHeaderReqd: "ext-header-reqd",
}

// decode converts a server's bytes into lines, one per message.
func (t *tape) decode(p []byte) (said []string, err error) {
	d := &dump{p: p}
	if d.u64() != proto.MagicInit || d.u64() != proto.MagicOption || d.u16() != 3 {
		return nil, fmt.Errorf("bad greeting")
	}
	inOptions := true
	for len(d.p) > 0 && !d.short {
		if inOptions && len(d.p) >= 8 && be.Uint64(d.p) == proto.MagicOptReply {
			line, entered := d.optReply()
			said = append(said, line)
			inOptions = !entered
			continue
		}
		if inOptions { // EXPORT_NAME
			said = append(said, fmt.Sprintf("export %d flags %#x", d.u64(), d.u16()))
			inOptions = false
			if len(d.p) >= 124 && bytes.Equal(d.p[:124], make([]byte, 124)) {
				d.take(124)
				said[len(said)-1] += " zeroes"
			}
			continue
		}
		line, err := d.reply(t)
		if err != nil {
			return said, err
		}
		said = append(said, line)
	}
	if d.short {
		return said, io.ErrUnexpectedEOF
	}
	return said, nil
}

type dump struct {
	p     []byte
	short bool
}

func (d *dump) take(n int) []byte {
	if n < 0 || n > len(d.p) {
		d.short, d.p = true, nil
		return make([]byte, 8)
	}
	p := d.p[:n]
	d.p = d.p[n:]
	return p
}

func (d *dump) u16() uint16 { return be.Uint16(d.take(2)) }
func (d *dump) u32() uint32 { return be.Uint32(d.take(4)) }
func (d *dump) u64() uint64 { return be.Uint64(d.take(8)) }

func (d *dump) optReply() (line string, entered bool) {
	d.u64()
	opt, rep := proto.Option(d.u32()), proto.OptReply(d.u32())
	data := d.take(int(min(d.u32(), 1<<20)))
	line = fmt.Sprintf("%d %s", opt, repNames[rep])
	in := &dump{p: data}
	switch {
	case rep >= proto.RepErrUnsup && (len(data) > proto.MaxString || !utf8.Valid(data)):
		line += " with a text that no client takes"
	case rep == proto.RepServer:
		line += fmt.Sprintf(" %q", in.take(int(in.u32()))) + fmt.Sprintf(" %q", in.p)
	case rep == proto.RepMetaContext:
		line += fmt.Sprintf(" %d %s", in.u32(), in.p)
	case rep == proto.RepInfo:
		line += in.info()
	}
	return line, rep == proto.RepAck && opt == proto.OptGo
}

func (d *dump) info() string {
	switch kind := d.u16(); kind {
	case proto.InfoExport:
		return fmt.Sprintf(" export %d flags %#x", d.u64(), d.u16())
	case proto.InfoBlockSize:
		return fmt.Sprintf(" block %d %d %d", d.u32(), d.u32(), d.u32())
	default:
		return fmt.Sprintf(" %d %q", kind, d.p)
	}
}

func (d *dump) reply(t *tape) (string, error) {
	switch magic := d.u32(); magic {
	case proto.MagicSimple:
		e, cookie := proto.Errno(d.u32()), d.u64()
		if t.mode == "extended" {
			return "", fmt.Errorf("simple reply")
		}
		if n, isRead := t.reads[cookie]; isRead && e == 0 {
			if t.mode != "simple" {
				return "", fmt.Errorf("simple reply to a read")
			}
			return fmt.Sprintf("#%d data %s", cookie, digest(d.take(int(n)))), nil
		}
		return fmt.Sprintf("#%d %s", cookie, errnoName(e)), nil
	case proto.MagicStructured, proto.MagicExtReply:
		if (magic == proto.MagicExtReply) != (t.mode == "extended") || t.mode == "simple" {
			return "", fmt.Errorf("chunk in mode %s", t.mode)
		}
		return d.chunk(t.mode == "extended")
	default:
		return "", fmt.Errorf("magic %#x", magic)
	}
}

func (d *dump) chunk(ext bool) (string, error) {
	flags, kind, cookie := d.u16(), proto.Chunk(d.u16()), d.u64()
	var n int
	if ext {
		d.u64()
		n = int(d.u64())
	} else {
		n = int(d.u32())
	}
	in := &dump{p: d.take(n)}
	line := fmt.Sprintf("#%d ", cookie)
	switch kind {
	case proto.ChunkNone:
		line += "ok"
	case proto.ChunkData:
		line += fmt.Sprintf("data@%d %s", in.u64(), digest(in.p))
		in.p = nil
	case proto.ChunkHole:
		line += fmt.Sprintf("hole@%d+%d", in.u64(), in.u32())
	case proto.ChunkBlockStatus:
		line += fmt.Sprintf("status %d", in.u32())
		for len(in.p) > 0 {
			line += fmt.Sprintf(" %d/%d", in.u32(), in.u32())
		}
	case proto.ChunkBlockStatusExt:
		line += fmt.Sprintf("status %d n=%d", in.u32(), in.u32())
		for len(in.p) > 0 {
			line += fmt.Sprintf(" %d/%d", in.u64(), in.u64())
		}
	case proto.ChunkError:
		line += errnoName(proto.Errno(in.u32()))
		in.take(int(in.u16()))
	default:
		return "", fmt.Errorf("chunk %d", kind)
	}
	if in.short || len(in.p) > 0 {
		return "", fmt.Errorf("chunk %d with a wrong length", kind)
	}
	if flags&proto.ReplyDone == 0 {
		line += " …"
	}
	return line, nil
}

func errnoName(e proto.Errno) string {
	names := map[proto.Errno]string{0: "ok", proto.EPERM: "EPERM", proto.EIO: "EIO", proto.EINVAL: "EINVAL",
		proto.ENOSPC: "ENOSPC", proto.EOVERFLOW: "EOVERFLOW", proto.ENOTSUP: "ENOTSUP", proto.ESHUTDOWN: "ESHUTDOWN"}
	return names[e]
}

// digest describes data of one byte value by that value and its length.
func digest(p []byte) string {
	for _, b := range p {
		if b != p[0] {
			return fmt.Sprintf("mixed*%d", len(p))
		}
	}
	if len(p) == 0 {
		return "nothing"
	}
	return fmt.Sprintf("%d*%d", p[0], len(p))
}

const diskSize = 1 << 20 // bytes

// disk is a fresh set of exports: one memory disk with a map.
func disk(opts ...memdev.Option) nbd.Fixed {
	d := memdev.New(diskSize/blk.SectorSize, opts...)
	return nbd.Fixed{{Info: nbd.Info{Name: "disk", Description: "a disk"}, Device: export.Check(d), Extents: d.Extents, SparseReads: true}}
}

func expect(t *testing.T, said []string, want ...string) {
	t.Helper()
	if strings.Join(said, "\n") != strings.Join(want, "\n") {
		t.Errorf("the server said\n  %s\nwanted\n  %s", strings.Join(said, "\n  "), strings.Join(want, "\n  "))
	}
}
