package attach

import (
	"udm/env"
	"udm/export"
	"udm/export/fuse"
)

func mountFiles(x export.Exports, dir string) (fileServer, error) {
	s, err := fuse.Mount(env.Real(), x, dir, fuse.Options{})
	if err != nil {
		return nil, err
	}
	return s, nil
}
