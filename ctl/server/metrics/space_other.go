//go:build !linux

package metrics

import "errors"

// spaceOf is known on Linux only.
func spaceOf(string) (space, error) { return space{}, errors.ErrUnsupported }
