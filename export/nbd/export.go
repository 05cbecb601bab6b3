package nbd

import (
	"errors"
	"io/fs"

	"udm/export"
)

// What a server has to offer is said by package export.
type (
	Exports = export.Exports
	Info    = export.Info
	Export  = export.Export
	Fixed   = export.Fixed
)

// open finds the export that a client asks for. The empty name is the default
// export: one that is called so or, if there is just one, that one.
func open(x Exports, name string) (*Export, error) {
	e, err := x.Open(name)
	if name != "" || !errors.Is(err, fs.ErrNotExist) {
		return e, err
	}
	if all := x.List(); len(all) == 1 {
		return x.Open(all[0].Name)
	}
	return nil, err
}
