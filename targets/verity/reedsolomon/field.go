package reedsolomon

// modulus defines GF(256) as polynomials over GF(2) modulo x⁸+x⁴+x³+x²+1. The element a
// is x; it is primitive, so all other elements but zero are its powers.
const modulus = 0x11d

var (
	power [512]byte // a^i, repeated so that sums of two logarithms need no modulo
	log   [256]int  // to the base a
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

// div returns x/y. y must not be zero.
func div(x, y byte) byte {
	if x == 0 {
		return 0
	}
	return power[log[x]+255-log[y]]
}
