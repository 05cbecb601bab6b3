// Package reedsolomon implements the Reed-Solomon code of verity disks. Codewords have
// 255 bytes, of which the last n are parity. A word with e errors at unknown positions
// and f erasures can be corrected if 2e + f ≤ n.
//
// Byte i of a word is the coefficient of x^(254-i). A word is valid if its polynomial is
// zero at the powers 0 to n-1 of the primitive element a (field.go).
package reedsolomon

import "errors"

// WordSize is the length of a codeword in bytes.
const WordSize = 255

// MaxRoots is the largest number of bytes of parity.
const MaxRoots = 24

// ErrTooManyErrors reports a word with more errors than the code can correct.
var ErrTooManyErrors = errors.New("too many errors to correct")

// Code is the code for a number of bytes of parity. It is immutable.
type Code struct {
	roots    int
	feedback [256][MaxRoots]byte // multiples of the generator without its highest coefficient
}

// New returns the code with roots bytes of parity, 1 to MaxRoots.
func New(roots int) *Code {
	c := &Code{roots: roots}
	generator := make([]byte, 1, roots+1) // highest coefficient first
	generator[0] = 1
	for i := range roots {
		generator = append(generator, 0)
		for j := len(generator) - 1; j > 0; j-- {
			generator[j] ^= mul(generator[j-1], power[i])
		}
	}
	for f := range c.feedback {
		for i := range roots {
			c.feedback[f][i] = mul(byte(f), generator[i+1])
		}
	}
	return c
}

// Roots returns the number of bytes of parity in a word.
func (c *Code) Roots() int { return c.roots }

// Data returns the number of bytes of data in a word.
func (c *Code) Data() int { return WordSize - c.roots }

// Add updates parity, of length Roots, with the next byte of the word's data. The parity
// of no data is zero.
func (c *Code) Add(parity []byte, b byte) {
	row := &c.feedback[b^parity[0]]
	last := c.roots - 1
	for i := range last {
		parity[i] = parity[i+1] ^ row[i]
	}
	parity[last] = row[last]
}
