package reedsolomon

// The field of 256 elements: polynomials over GF(2) modulo x⁸+x⁴+x³+x²+1. a is the
// element x; all others but zero are its powers.
const modulus = 0x11d

var (
	power [512]byte // a to the i; twice, so that sums of two logarithms need no modulo
	log   [256]int
)

func init() {
	x := 1
	for i := range 255 {
		power[i], power[i+255] = byte(x), byte(x)
		log[x] = i
		if x <<= 1; x > 255 {
			x ^= modulus
		}
	}
}

func mul(x, y byte) byte {
	if x == 0 || y == 0 {
		return 0
	}
	return power[log[x]+log[y]]
}

// div is x/y; y is not zero.
func div(x, y byte) byte {
	if x == 0 {
		return 0
	}
	return power[log[x]+255-log[y]]
}
