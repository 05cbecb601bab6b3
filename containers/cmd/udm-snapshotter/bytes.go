package main

import (
	"fmt"
	"strconv"
	"strings"
)

// bytes is a flag for a size: a number with K, M, G or T.
type bytes uint64

func (b *bytes) String() string { return strconv.FormatUint(uint64(*b), 10) }

func (b *bytes) Set(text string) error {
	shift := 0
	for i, unit := range []string{"K", "M", "G", "T"} {
		if number, is := strings.CutSuffix(text, unit); is {
			shift, text = 10*(i+1), number
			break
		}
	}
	n, err := strconv.ParseUint(text, 10, 63-shift)
	if err != nil || n == 0 {
		return fmt.Errorf("%q is not a size; give a number with K, M, G or T", text)
	}
	*b = bytes(n << shift)
	return nil
}
