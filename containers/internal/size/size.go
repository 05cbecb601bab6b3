// Package size reads sizes as people and Kubernetes write them.
package size

import (
	"fmt"
	"strconv"
	"strings"
)

// Bytes is a flag for a size.
type Bytes uint64

func (b *Bytes) String() string { return strconv.FormatUint(uint64(*b), 10) }

// Set implements flag.Value.
func (b *Bytes) Set(text string) error {
	n, err := Parse(text)
	*b = Bytes(n)
	return err
}

// Parse reads a number of bytes with K, M, G or T, or Ki, Mi, Gi or Ti, which mean the
// same here: powers of 1024.
func Parse(text string) (uint64, error) {
	number, shift := strings.TrimSuffix(text, "i"), 0
	for i, unit := range []string{"K", "M", "G", "T"} {
		if cut, is := strings.CutSuffix(number, unit); is {
			number, shift = cut, 10*(i+1)
			break
		}
	}
	n, err := strconv.ParseUint(number, 10, 63-shift)
	if err != nil || n == 0 || shift == 0 && number != text {
		return 0, fmt.Errorf("%q is not a size; give a number with K, M, G or T", text)
	}
	return n << shift, nil
}
