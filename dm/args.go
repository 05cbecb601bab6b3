package dm

import (
	"strconv"
	"strings"
	"syscall"
)

// splitArgs splits a target's parameters at white space. A backslash takes the
// next character as it is (the kernel's dm_split_args).
func splitArgs(s string) ([]string, error) {
	var args []string
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
	return args, nil
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

// ParseUint reads a decimal number as the kernel's "%llu%c" does: digits only,
// nothing behind them. max is the largest value allowed.
func ParseUint(s string, max uint64) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > max {
		return 0, Errorf(syscall.EINVAL, "%q is not a number up to %d", s, max)
	}
	return n, nil
}

// Args reads a target's words in order: the kernel's struct dm_arg_set.
type Args struct{ rest []string }

// NewArgs reads from words.
func NewArgs(words []string) *Args { return &Args{words} }

// Len is how many words are left.
func (a *Args) Len() int { return len(a.rest) }

// Next takes the next word, "" when there is none.
func (a *Args) Next() string {
	if len(a.rest) == 0 {
		return ""
	}
	w := a.rest[0]
	a.rest = a.rest[1:]
	return w
}

// Number takes a number between min and max; what is not one is an EINVAL that
// says reason.
func (a *Args) Number(min, max uint64, reason string) (uint64, error) {
	n, err := ParseUint(a.Next(), max)
	if err != nil || n < min {
		return 0, Errorf(syscall.EINVAL, "%s", reason)
	}
	return n, nil
}

// Group takes a count between min and max that at least so many words follow.
func (a *Args) Group(min, max uint64, reason string) (int, error) {
	n, err := a.Number(min, max, reason)
	if err != nil {
		return 0, err
	}
	if n > uint64(len(a.rest)) {
		return 0, Errorf(syscall.EINVAL, "Not enough arguments for %s", reason)
	}
	return int(n), nil
}
