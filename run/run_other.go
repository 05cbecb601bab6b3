//go:build !linux || !(amd64 || arm64)

package run

import (
	"context"
	"errors"

	"udm/ctl"
)

// Run refuses: there is no way to intercept system calls here.
func Run(context.Context, ctl.Service, Config) (int, error) {
	return 0, errors.New("udm run needs Linux on x86-64 or arm64; udm dmsetup and udm mount work everywhere that udm does")
}

// Exec refuses like Run.
func Exec([]string) error {
	_, err := Run(context.Background(), nil, Config{})
	return err
}
