package nbd

import (
	"errors"
	"io/fs"

	"udm/export"
)

// Package export defines what a server offers.
type (
	Exports = export.Exports
	Info    = export.Info
	Export  = export.Export
	Fixed   = export.Fixed
)

// open opens the export that a client requests. The empty name means the default
// export: the one with that name or, if there is only one export, that one.
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
