package attach

import (
	"context"
	"encoding/json"
	"os"

	"udm/env"
	"udm/export"
	"udm/export/fuse"
)

func mountFiles(x export.Exports, dir string) (fileServer, error) {
	s, err := fuse.Mount(env.Real(), x, dir, fuse.Options{})
	if err != nil {
		return nil, err
	}
	return served{s}, nil
}

// served is a mount as a fileServer.
type served struct{ *fuse.Server }

func (s served) hand(ctx context.Context) (json.RawMessage, *os.File, error) {
	m, err := s.Hand(ctx)
	if err != nil || m == nil {
		return nil, nil, err
	}
	text, err := json.Marshal(m)
	return text, m.Device, err
}

// takeFiles takes over a mount, or closes it. lost: see [fuse.Options].
func takeFiles(x export.Exports, text json.RawMessage, device *os.File, lost func(string, error)) (fileServer, func(), error) {
	defer device.Close()
	var m fuse.Moved
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, nil, err
	}
	m.Device = device
	s, start, err := fuse.Take(env.Real(), x, &m, fuse.Options{Lost: lost})
	if err != nil {
		return nil, nil, err
	}
	return served{s}, start, nil
}
