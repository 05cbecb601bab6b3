package dm

import (
	"strconv"
	"strings"
	"syscall"
)

// SplitWords splits a target's parameters at white space. A backslash makes the next
// character part of a word (the kernel's dm_split_args).
func SplitWords(s string) (args []string) {
	var w strings.Builder
	in := false
	for i := 0; i < len(s); i++ {
		c := s[i]
		if isSpace(c) {
			if in {
				args = append(args, w.String())
				w.Reset()
				in = false
			}
			continue
		}
		if c == '\\' && i+1 < len(s) {
			i++
			c = s[i]
		}
		in = true
		w.WriteByte(c)
	}
	if in {
		args = append(args, w.String())
	}
	return args
}

// QuoteWord quotes a word, such as a path, so that SplitWords returns it as one.
func QuoteWord(word string) string {
	if !strings.ContainsAny(word, blanks+`\`) {
		return word
	}
	var b strings.Builder
	for _, c := range []byte(word) {
		if isSpace(c) || c == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	return b.String()
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

// ParseUint parses a decimal number as the kernel's sscanf with "%llu%c" does: only
// digits, and a number that does not fit into 64 bits wraps. max is the largest value
// allowed. The error is EINVAL.
func ParseUint(s string, max uint64) (uint64, error) {
	n, ok := scanDigits(s)
	if !ok || n > max {
		return 0, Errorf(syscall.EINVAL, "%q is not a number up to %d", s, max)
	}
	return n, nil
}

// ParseUint32 and ParseUint64 parse a number as the kernel's kstrtouint and kstrtoull
// do: one plus sign is allowed, and a number that does not fit is refused with EINVAL.
func ParseUint32(s string) (uint32, error) {
	n, err := parseStrict(s, 32)
	return uint32(n), err
}

// ParseUint64: see ParseUint32.
func ParseUint64(s string) (uint64, error) { return parseStrict(s, 64) }

func parseStrict(s string, bits int) (uint64, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(s, "+"), 10, bits)
	if err != nil {
		return 0, Errorf(syscall.EINVAL, "%q is not a number of %d bits", s, bits)
	}
	return n, nil
}

func scanDigits(s string) (n uint64, ok bool) {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, s != ""
}

// Args reads a target's words in order (the kernel's struct dm_arg_set).
type Args struct{ rest []string }

// NewArgs returns an Args that reads words.
func NewArgs(words []string) *Args { return &Args{words} }

// Len returns the number of words left.
func (a *Args) Len() int { return len(a.rest) }

// Next takes the next word; it returns "" if none is left.
func (a *Args) Next() string {
	if len(a.rest) == 0 {
		return ""
	}
	w := a.rest[0]
	a.rest = a.rest[1:]
	return w
}

// Number takes a number from min to max. If the next word is not one, the error is
// EINVAL with the text reason. As in the kernel's dm_read_arg, the number has 32 bits
// and a larger one wraps.
func (a *Args) Number(min, max uint64, reason string) (uint64, error) {
	n, ok := scanDigits(a.Next())
	n = uint64(uint32(n))
	if !ok || n < min || n > max {
		return 0, Errorf(syscall.EINVAL, "%s", reason)
	}
	return n, nil
}

// Group takes a count from min to max that at least as many words follow. If there is
// none, the error is EINVAL with the text reason.
func (a *Args) Group(min, max uint64, reason string) (int, error) {
	n, err := a.Number(min, max, reason)
	if err != nil {
		return 0, err
	}
	if n > uint64(len(a.rest)) {
		return 0, Errorf(syscall.EINVAL, "%s", reason)
	}
	return int(n), nil
}
