package nbd

import (
	"strings"

	"udm/internal/nbd/proto"
)

func (h *handshake) listMeta(data []byte) error {
	_, match, err := h.parseMeta(data, true)
	if err != nil {
		return err
	}
	if match {
		h.reply(proto.RepMetaContext, append(be.AppendUint32(nil, 0), proto.ContextAllocation...))
	}
	h.reply(proto.RepAck, nil)
	return nil
}

// contextID is the number of base:allocation in block status replies.
const contextID = 1

func (h *handshake) setMeta(data []byte) error {
	h.meta = false
	name, match, err := h.parseMeta(data, false)
	if err != nil {
		return err
	}
	if match {
		h.meta, h.metaName = true, name
		h.reply(proto.RepMetaContext, append(be.AppendUint32(nil, contextID), proto.ContextAllocation...))
	}
	h.reply(proto.RepAck, nil)
	return nil
}

// parseMeta decodes the data of the two META_CONTEXT options: name length, name,
// number of queries, and a length and a string for each. It reports whether the
// queries select base:allocation.
func (h *handshake) parseMeta(data []byte, list bool) (name string, match bool, err error) {
	if h.mode == simple {
		return "", false, refuse(proto.RepErrInvalid, "metadata contexts require structured replies")
	}
	d := decoder{p: data}
	name = d.str()
	n := d.u32()
	match = list && n == 0
	for ; n > 0 && !d.bad; n-- {
		q := d.str()
		if !d.bad && !strings.Contains(q, ":") {
			return "", false, refuse(proto.RepErrInvalid, "query %q has no namespace", q)
		}
		match = match || q == proto.ContextAllocation || list && q == "base:"
	}
	if !d.end() {
		return "", false, refuse(proto.RepErrInvalid, "malformed list of metadata contexts")
	}
	return name, match, h.exists(name)
}

func (h *handshake) exists(name string) error {
	s, err := h.attach(name)
	if err == nil {
		s.export.Done()
	}
	return err
}
