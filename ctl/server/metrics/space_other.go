//go:build !linux

package metrics

import "errors"

// spaceOf is implemented only on Linux.
func spaceOf(string) (space, error) { return space{}, errors.ErrUnsupported }
