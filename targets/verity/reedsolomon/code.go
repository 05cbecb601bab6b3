// Package reedsolomon is the Reed-Solomon code of verity disks: words of 255 bytes, of
// which the last ones are parity. With n bytes of parity, a word with e bytes wrong at
// unknown and f bytes at known places is mended while 2e + f ≤ n.
//
// Byte i of a word is the coefficient of x to the 254-i, and a word is right if its
// polynomial is zero at the powers 0 to n-1 of the element a (field.go).
package reedsolomon

import "errors"

// WordSize is the length of a word.
const WordSize = 255

// MaxRoots bounds the bytes of parity.
const MaxRoots = 24

// ErrTooManyErrors says that a word cannot be mended.
var ErrTooManyErrors = errors.New("too many bytes are wrong to be corrected")

// Code is the code with a number of bytes of parity. It is not changed once it is made.
type Code struct {
	roots    int
	feedback [256][MaxRoots]byte // multiples of the generator without its highest coefficient
}

// New makes the code with roots bytes of parity, 1 to MaxRoots.
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

// Roots is the number of bytes of parity.
func (c *Code) Roots() int { return c.roots }

// Data is the number of bytes in a word that are no parity.
func (c *Code) Data() int { return WordSize - c.roots }

// Add takes the next byte of a word's data into its parity, which is zero before the
// first.
func (c *Code) Add(parity []byte, b byte) {
	row := &c.feedback[b^parity[0]]
	last := c.roots - 1
	for i := range last {
		parity[i] = parity[i+1] ^ row[i]
	}
	parity[last] = row[last]
}
