package nbd

import (
	"errors"
	"io/fs"
	"math/bits"

	"udm/blk"
	"udm/internal/nbd/proto"
)

// optionFuncs are the options without special handling in the handshake.
var optionFuncs = map[proto.Option]func(*handshake, []byte) error{
	proto.OptExportName:      (*handshake).exportName,
	proto.OptList:            (*handshake).list,
	proto.OptInfo:            (*handshake).infoOrGo,
	proto.OptGo:              (*handshake).infoOrGo,
	proto.OptStructuredReply: (*handshake).structuredReply,
	proto.OptListMetaContext: (*handshake).listMeta,
	proto.OptSetMetaContext:  (*handshake).setMeta,
	proto.OptExtendedHeaders: (*handshake).extendedHeaders,
}

func (h *handshake) list(data []byte) error {
	if len(data) != 0 {
		return refuse(proto.RepErrInvalid, "LIST has no data")
	}
	for _, info := range h.c.srv.cfg.Exports.List() {
		p := be.AppendUint32(nil, uint32(len(info.Name)))
		p = append(p, info.Name...)
		h.reply(proto.RepServer, cutString(p, info.Description))
		if h.out.Len() > replyChunk {
			if err := h.flush(); err != nil {
				return err
			}
		}
	}
	h.reply(proto.RepAck, nil)
	return nil
}

func (h *handshake) structuredReply(data []byte) error {
	switch {
	case len(data) != 0:
		return refuse(proto.RepErrInvalid, "STRUCTURED_REPLY has no data")
	case h.mode == extended:
		return refuse(proto.RepErrExtHeaderReqd, "extended headers are already on")
	}
	h.mode = structured
	h.reply(proto.RepAck, nil)
	return nil
}

func (h *handshake) extendedHeaders(data []byte) error {
	if len(data) != 0 {
		return refuse(proto.RepErrInvalid, "EXTENDED_HEADERS has no data")
	}
	h.mode = extended
	h.reply(proto.RepAck, nil)
	return nil
}

func (h *handshake) exportName(data []byte) error {
	if h.mode == extended {
		return refuse(proto.RepErrInvalid, "EXPORT_NAME is not allowed after EXTENDED_HEADERS")
	}
	s, err := h.attach(string(data))
	if err != nil {
		return err
	}
	h.session = s
	p := be.AppendUint64(nil, s.size)
	p = be.AppendUint16(p, s.flags)
	if !h.noZeroes {
		p = append(p, make([]byte, 124)...)
	}
	h.out.Write(p)
	return nil
}

// peek opens an export.
func (h *handshake) peek(name string) (*Export, error) {
	if len(name) > proto.MaxString {
		return nil, refuse(proto.RepErrTooBig, "export name of %d bytes; the limit is %d", len(name), proto.MaxString)
	}
	e, err := open(h.c.srv.cfg.Exports, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refuse(proto.RepErrUnknown, "there is no export named %q", name)
	}
	if err != nil {
		return nil, refuse(proto.RepErrPolicy, "%v", err)
	}
	return e, nil
}

// attach opens the export and computes the session on it.
func (h *handshake) attach(name string) (*session, error) {
	e, err := h.peek(name)
	if err != nil {
		return nil, err
	}
	s := &session{rw: h.rw, export: e, mode: h.mode}
	if h.metaName == name || h.metaName == e.Name {
		if s.chosen, err = resolve(e, h.chosen); err != nil {
			e.Done()
			return nil, err
		}
	}
	lim := e.Device.Limits()
	s.size = lim.Size * blk.SectorSize
	s.flags = transmissionFlags(&lim, e.ReadOnly || lim.ReadOnly, s.mode, len(s.chosen) > 0)
	return s, nil
}

func transmissionFlags(lim *blk.Limits, readOnly bool, mode replyMode, meta bool) uint16 {
	f := uint16(proto.FlagHasFlags | proto.FlagFlush | proto.FlagMultiConn | proto.FlagCache)
	if readOnly {
		f |= proto.FlagReadOnly
	} else {
		f |= proto.FlagFUA | proto.FlagWriteZeroes | proto.FlagFastZero
		if lim.MaxDiscard > 0 {
			f |= proto.FlagTrim
		}
	}
	if lim.Rotational {
		f |= proto.FlagRotational
	}
	if mode != simple {
		f |= proto.FlagDF
	}
	if mode == extended && meta {
		f |= proto.FlagStatusByPayload
	}
	return f
}

func (h *handshake) infoOrGo(data []byte) error {
	name, wants, err := parseInfo(data)
	if err != nil {
		return err
	}
	s, err := h.attach(name)
	if err != nil {
		return err
	}
	h.describe(s, wants)
	h.reply(proto.RepAck, nil)
	if h.opt == proto.OptGo {
		h.session = s
	} else {
		s.export.Done()
	}
	return nil
}

// parseInfo decodes the data of INFO and GO: name length, name, number of
// information requests, requests.
func parseInfo(data []byte) (name string, wants []byte, err error) {
	d := decoder{p: data}
	name = d.str()
	wants = d.bytes(2 * int(d.u16()))
	if !d.end() {
		return "", nil, refuse(proto.RepErrInvalid, "malformed INFO or GO")
	}
	return name, wants, nil
}

func (h *handshake) describe(s *session, wants []byte) {
	p := be.AppendUint16(nil, proto.InfoExport)
	p = be.AppendUint64(p, s.size)
	h.reply(proto.RepInfo, be.AppendUint16(p, s.flags))

	lim := s.export.Device.Limits()
	p = be.AppendUint16(nil, proto.InfoBlockSize)
	p = be.AppendUint32(p, minBlock(&lim))
	p = be.AppendUint32(p, preferredBlock(&lim))
	h.reply(proto.RepInfo, be.AppendUint32(p, proto.MaxPayload))

	for ; len(wants) > 0; wants = wants[2:] {
		switch t := be.Uint16(wants); {
		case t == proto.InfoName:
			h.reply(proto.RepInfo, append(be.AppendUint16(nil, t), s.export.Name...))
		case t == proto.InfoDescription && s.export.Description != "":
			h.reply(proto.RepInfo, cutString(be.AppendUint16(nil, t), s.export.Description))
		}
	}
}

// minBlock is the alignment of requests, in bytes.
func minBlock(lim *blk.Limits) uint32 { return max(lim.LogicalBlock, blk.SectorSize) }

// preferredBlock is the smallest efficient size of requests, in bytes: a power of
// two between the minimum and the largest payload.
func preferredBlock(lim *blk.Limits) uint32 {
	best := max(minBlock(lim), 4096)
	for _, n := range []uint32{lim.PhysicalBlock, lim.MinIO} {
		if bits.OnesCount32(n) == 1 && n <= proto.MaxPayload {
			best = max(best, n)
		}
	}
	return best
}
