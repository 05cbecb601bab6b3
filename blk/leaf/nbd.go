package leaf

import (
	"strings"
	"syscall"

	"udm/blk"
	"udm/blk/nbdclient"
	"udm/blk/nbddev"
	"udm/dm"
)

// parseNBD is an NBD URI, with nbd: before it or without.
func parseNBD(name, rest string) (source, error) {
	uri := name
	if strings.HasPrefix(rest, ":nbd") {
		uri = rest[1:]
	}
	o, err := nbddev.Parse(uri)
	if err != nil {
		return source{}, dm.Errorf(syscall.EINVAL, "%v", err)
	}
	network, addr, export, _, _ := nbdclient.ParseURI(uri) // Parse has read it
	return source{
		id: identity{name: network + " " + addr + " " + export}, shared: true,
		open: func(opener *Opener, _ bool) (blk.Device, error) { return nbddev.Open(opener.env, o) },
	}, nil
}

// Report implements [blk.Reporter] for disks that have something to tell.
func (h *handle) Report() blk.Report {
	r, _ := blk.ReportOf(h.raw)
	return r
}
