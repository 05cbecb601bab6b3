package nbd

import (
	"slices"
	"strings"

	"udm/export"
	"udm/internal/nbd/proto"
)

// chosen is a metadata context that a client has selected.
type chosen struct {
	id uint32 // in block status replies
	export.Context
}

// maxChosen bounds the contexts that a client may select.
const maxChosen = 16

// contexts are those of an export, base:allocation first. The others are looked at if
// any name but that is wanted, or none.
func contexts(e *Export, wanted []string) []export.Context {
	list := []export.Context{allocation(e)}
	other := func(name string) bool { return name != proto.ContextAllocation }
	if e.Contexts != nil && (len(wanted) == 0 || slices.ContainsFunc(wanted, other)) {
		list = append(list, e.Contexts()...)
	}
	return slices.DeleteFunc(list, func(x export.Context) bool { return len(x.Name) > proto.MaxString })
}

// resolve finds what was selected in an export that is opened anew. What is gone
// refuses the client.
func resolve(e *Export, were []chosen) (now []chosen, err error) {
	if len(were) == 0 {
		return nil, nil
	}
	var names []string
	for _, x := range were {
		names = append(names, x.Name)
	}
	list := contexts(e, names)
	for _, x := range were {
		i := slices.IndexFunc(list, func(o export.Context) bool { return o.Name == x.Name })
		if i < 0 {
			return nil, refuse(proto.RepErrInvalid, "there is no metadata context %q any more", x.Name)
		}
		now = append(now, chosen{x.id, list[i]})
	}
	return now, nil
}

// listMeta lists contexts: those of a name, those below a prefix that ends in a
// colon, or all.
func (h *handshake) listMeta(data []byte) error {
	_, queries, list, err := h.parseMeta(data)
	if err != nil {
		return err
	}
	for _, x := range list {
		match := func(q string) bool { return q == x.Name || strings.HasSuffix(q, ":") && strings.HasPrefix(x.Name, q) }
		if len(queries) == 0 || slices.ContainsFunc(queries, match) {
			h.replyContext(chosen{0, x})
		}
	}
	h.reply(proto.RepAck, nil)
	return nil
}

func (h *handshake) setMeta(data []byte) error {
	h.chosen = nil
	name, queries, list, err := h.parseMeta(data)
	if err != nil {
		return err
	}
	var now []chosen
	for i, x := range list {
		if slices.Contains(queries, x.Name) {
			now = append(now, chosen{uint32(i + 1), x})
		}
	}
	if len(now) > maxChosen {
		return refuse(proto.RepErrTooBig, "at most %d metadata contexts can be selected", maxChosen)
	}
	for _, x := range now {
		h.replyContext(x)
	}
	h.chosen, h.metaName = now, name
	h.reply(proto.RepAck, nil)
	return nil
}

func (h *handshake) replyContext(x chosen) {
	h.reply(proto.RepMetaContext, append(be.AppendUint32(nil, x.id), x.Name...))
}

// parseMeta decodes the data of the two META_CONTEXT options: name length, name,
// number of queries, and a length and a string for each. It lists the contexts of
// the export.
func (h *handshake) parseMeta(data []byte) (name string, queries []string, list []export.Context, err error) {
	if h.mode == simple {
		return "", nil, nil, refuse(proto.RepErrInvalid, "metadata contexts require structured replies")
	}
	d := decoder{p: data}
	name = d.str()
	for n := d.u32(); n > 0 && !d.bad; n-- {
		q := d.str()
		if !d.bad && !strings.Contains(q, ":") {
			return "", nil, nil, refuse(proto.RepErrInvalid, "query %q has no namespace", q)
		}
		queries = append(queries, q)
	}
	if !d.end() {
		return "", nil, nil, refuse(proto.RepErrInvalid, "malformed list of metadata contexts")
	}
	e, err := h.peek(name)
	if err != nil {
		return "", nil, nil, err
	}
	defer e.Done()
	return name, queries, contexts(e, queries), nil
}
