package udmtest

import (
	"udm/env"
	"udm/export"
	"udm/export/fuse"
)

func mountAt(x export.Fixed, dir string) (func() error, error) {
	s, err := fuse.Mount(env.Real(), x, dir, fuse.Options{})
	if err != nil {
		return nil, err
	}
	return s.Close, nil
}
