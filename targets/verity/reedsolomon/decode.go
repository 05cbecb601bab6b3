package reedsolomon

// poly is a polynomial of degree at most 2·MaxRoots, lowest coefficient first.
type poly [2*MaxRoots + 1]byte

// at returns the value of p, whose degree is at most n, at a^exponent.
func (p *poly) at(n, exponent int) (sum byte) {
	for i := 0; i <= n; i++ {
		if p[i] != 0 {
			sum ^= power[(log[p[i]]+i*exponent)%255]
		}
	}
	return sum
}

// Decode corrects a word in place and returns the number of bytes that it changed.
// erasures are the distinct indices of bytes whose values are unknown. If the error is
// ErrTooManyErrors, the word is unchanged.
func (c *Code) Decode(word []byte, erasures []int) (int, error) {
	var syndromes poly
	if c.syndromes(word, &syndromes) {
		return 0, nil
	}
	if len(erasures) > c.roots {
		return 0, ErrTooManyErrors
	}
	locator, degree := c.locate(&syndromes, erasures)
	if degree > c.roots || degree-len(erasures) > (c.roots-len(erasures))/2 {
		return 0, ErrTooManyErrors
	}
	return c.correct(word, &syndromes, &locator, degree)
}

// syndromes sets s to the values of the word at the code's roots, and reports whether the
// word is valid, which means that all are zero.
func (c *Code) syndromes(word []byte, s *poly) (valid bool) {
	valid = true
	for i := range c.roots {
		var v byte
		for _, b := range word {
			if v != 0 {
				v = power[log[v]+i]
			}
			v ^= b
		}
		s[i] = v
		valid = valid && v == 0
	}
	return valid
}

// locate computes the error locator polynomial, whose roots give the positions of the
// errors, and its degree (Berlekamp-Massey, initialized with the erasures).
func (c *Code) locate(s *poly, erasures []int) (locator poly, degree int) {
	locator[0] = 1
	for n, e := range erasures {
		x := power[WordSize-1-e]
		for i := n + 1; i > 0; i-- {
			locator[i] ^= mul(x, locator[i-1])
		}
	}
	degree = len(erasures)
	before := locator // at the last change of degree, divided by its discrepancy, times x in each step
	for step := len(erasures); step < c.roots; step++ {
		var discrepancy byte
		for i := 0; i <= min(degree, step); i++ {
			discrepancy ^= mul(locator[i], s[step-i])
		}
		copy(before[1:], before[:len(before)-1])
		before[0] = 0
		if discrepancy == 0 {
			continue
		}
		next := locator
		for i, b := range before {
			next[i] ^= mul(discrepancy, b)
		}
		if 2*degree <= step+len(erasures) {
			degree = step + 1 + len(erasures) - degree
			for i := range before {
				before[i] = div(locator[i], discrepancy)
			}
		}
		locator = next
	}
	return locator, degree
}

// correct finds the roots of the locator (Chien search) and the error values there
// (Forney's algorithm), and corrects the word.
func (c *Code) correct(word []byte, s, locator *poly, degree int) (int, error) {
	var evaluator poly // syndromes · locator mod x^roots
	for i := range c.roots {
		for j := 0; j <= min(i, degree); j++ {
			evaluator[i] ^= mul(s[i-j], locator[j])
		}
	}
	var derivative poly
	for i := 1; i <= degree; i += 2 {
		derivative[i-1] = locator[i]
	}
	var positions [MaxRoots]int
	var values [MaxRoots]byte
	found := 0
	for i := 0; i < WordSize && found < degree; i++ {
		inverse := (255 - (WordSize - 1 - i)) % 255 // the exponent of 1/a^(254-i)
		if locator.at(degree, inverse) != 0 {
			continue
		}
		slope := derivative.at(degree, inverse)
		if slope == 0 {
			return 0, ErrTooManyErrors
		}
		positions[found] = i
		values[found] = mul(power[WordSize-1-i], div(evaluator.at(c.roots-1, inverse), slope))
		found++
	}
	if found != degree {
		return 0, ErrTooManyErrors
	}
	n := 0
	for i, p := range positions[:found] {
		word[p] ^= values[i]
		if values[i] != 0 {
			n++
		}
	}
	return n, nil
}
