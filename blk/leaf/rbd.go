package leaf

import (
	"udm/blk"
	"udm/blk/rbddev"
)

// parseRBD parses the name of an image. It asks the cluster which image has the name.
func parseRBD(name, rest string) (source, error) {
	o, err := rbddev.Parse(rest)
	if err != nil {
		return source{}, openError(name, err)
	}
	id, err := rbddev.Find(o)
	if err != nil {
		return source{}, openError(name, err)
	}
	return source{id: identity{name: id.String()}, open: func(opener *Opener, write bool) (blk.Device, error) {
		return rbddev.Open(opener.env, o, id, write)
	}}, nil
}
