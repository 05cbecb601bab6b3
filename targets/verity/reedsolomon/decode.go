package reedsolomon

// poly is a polynomial of at most 2·MaxRoots coefficients, the lowest first.
type poly [2*MaxRoots + 1]byte

// at is the value of p, whose degree is at most n, at a power of a.
func (p *poly) at(n, exponent int) (sum byte) {
	for i := 0; i <= n; i++ {
		if p[i] != 0 {
			sum ^= power[(log[p[i]]+i*exponent)%255]
		}
	}
	return sum
}

// Decode mends a word in place and reports how many bytes were wrong. erasures are
// indices of bytes that may hold anything, each once.
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

// syndromes are the values at the code's roots; it reports whether all are zero.
func (c *Code) syndromes(word []byte, s *poly) (right bool) {
	right = true
	for i := range c.roots {
		var v byte
		for _, b := range word {
			if v != 0 {
				v = power[log[v]+i]
			}
			v ^= b
		}
		s[i] = v
		right = right && v == 0
	}
	return right
}

// locate finds the polynomial whose roots tell where the wrong bytes are, starting
// from the erasures (the algorithm of Berlekamp and Massey).
func (c *Code) locate(s *poly, erasures []int) (locator poly, degree int) {
	locator[0] = 1
	for n, e := range erasures {
		x := power[WordSize-1-e]
		for i := n + 1; i > 0; i-- {
			locator[i] ^= mul(x, locator[i-1])
		}
	}
	degree = len(erasures)
	before := locator // of the last change of degree, times x at each step, divided by its discrepancy
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

// correct finds the locator's roots and what is wrong there (the algorithms of Chien
// and Forney).
func (c *Code) correct(word []byte, s, locator *poly, degree int) (int, error) {
	var evaluator poly // syndromes · locator, modulo x to the roots
	for i := range c.roots {
		for j := 0; j <= min(i, degree); j++ {
			evaluator[i] ^= mul(s[i-j], locator[j])
		}
	}
	var derivative poly
	for i := 1; i <= degree; i += 2 {
		derivative[i-1] = locator[i]
	}
	var places [MaxRoots]int
	var amounts [MaxRoots]byte
	found := 0
	for i := 0; i < WordSize && found < degree; i++ {
		inverse := (255 - (WordSize - 1 - i)) % 255 // as exponent
		if locator.at(degree, inverse) != 0 {
			continue
		}
		slope := derivative.at(degree, inverse)
		if slope == 0 {
			return 0, ErrTooManyErrors
		}
		places[found] = i
		amounts[found] = mul(power[WordSize-1-i], div(evaluator.at(c.roots-1, inverse), slope))
		found++
	}
	if found != degree {
		return 0, ErrTooManyErrors
	}
	n := 0
	for i, p := range places[:found] {
		word[p] ^= amounts[i]
		if amounts[i] != 0 {
			n++
		}
	}
	return n, nil
}
