package csi

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"udm/containers/internal/size"
)

// ephemeralSize is the size of an ephemeral volume: the attribute size of its context.
func ephemeralSize(text string) (int64, error) {
	if text == "" {
		return defaultSize, nil
	}
	n, err := size.Parse(text)
	if err != nil || n > 1<<60 {
		return 0, status.Errorf(codes.InvalidArgument, "size: %q is not a size; give a number with Ki, Mi or Gi", text)
	}
	return (int64(n) + sizeUnit - 1) / sizeUnit * sizeUnit, nil
}
