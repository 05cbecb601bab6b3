package leaf

import (
	"strings"
	"syscall"

	"udm/blk"
	"udm/blk/nbdclient"
	"udm/blk/nbddev"
	"udm/dm"
)

// parseNBD parses an NBD URI, with or without the prefix nbd:.
func parseNBD(name, rest string) (source, error) {
	uri := name
	if strings.HasPrefix(rest, ":nbd") {
		uri = rest[1:]
	}
	o, err := nbddev.Parse(uri)
	if err != nil {
		return source{}, dm.Errorf(syscall.EINVAL, "%v", err)
	}
	network, addr, export, _, _ := nbdclient.ParseURI(uri) // cannot fail after Parse
	return source{
		id: identity{name: network + " " + addr + " " + export}, shared: true,
		open: func(opener *Opener, _ bool) (blk.Device, error) { return nbddev.Open(opener.env, o) },
	}, nil
}

// Report implements [blk.Reporter].
func (h *handle) Report() blk.Report {
	r, _ := blk.ReportOf(h.raw)
	return r
}
