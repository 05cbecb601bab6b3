package dm

import (
	"fmt"
	"math"
	"strings"
)

// Table text as dmsetup reads and prints it (libdm/dm-tools/dmsetup.c of LVM2).
//
//	START LENGTH TYPE PARAMS…       one target; START and LENGTH in sectors
//	# …                             a comment, also after PARAMS
//
// Blank lines and blanks around a line are ignored. PARAMS end at the first #, wherever
// it stands. Numbers are those of C's %llu: a minus sign wraps, and a number that is too
// large becomes the largest one.

const maxTypeLen = 15 // DM_MAX_TYPE_NAME without its NUL

// TableError reports a line of table text that has the wrong format.
type TableError struct {
	Line   int    // from 1
	Reason string // dmsetup's words
}

func (e *TableError) Error() string { return e.Reason }

// ParseTable parses the text of a table. The words of targets are checked only when the
// table is loaded. The error is a *[TableError].
func ParseTable(text string) ([]Spec, error) {
	var specs []Spec
	n := 0
	for line := range strings.SplitSeq(text, "\n") {
		n++
		line = strings.Trim(line, blanks)
		if line == "" || line[0] == '#' {
			continue
		}
		s, ok := parseSpec(line)
		if !ok {
			return nil, &TableError{n, fmt.Sprintf("Invalid format on line %d of table .", n)}
		}
		if len(s.Type) > maxTypeLen {
			return nil, &TableError{n, fmt.Sprintf("Target type name %s is too long.", s.Type)}
		}
		specs = append(specs, s)
	}
	return specs, nil
}

const blanks = " \t\n\v\f\r"

func parseSpec(line string) (s Spec, ok bool) {
	if s.Start, line, ok = cutNumber(line); !ok {
		return s, false
	}
	if s.Len, line, ok = cutNumber(line); !ok {
		return s, false
	}
	line = strings.TrimLeft(line, blanks)
	s.Type = line
	if i := strings.IndexAny(line, blanks); i >= 0 {
		s.Type, s.Params = line[:i], strings.TrimLeft(line[i:], blanks)
	}
	s.Params, _, _ = strings.Cut(s.Params, "#")
	return s, s.Type != ""
}

// cutNumber parses a number as C's sscanf does, and returns the text after it.
func cutNumber(s string) (n uint64, rest string, ok bool) {
	s = strings.TrimLeft(s, blanks)
	digits := s
	if s != "" && (s[0] == '-' || s[0] == '+') {
		digits = s[1:]
	}
	end := 0
	for ; end < len(digits) && '0' <= digits[end] && digits[end] <= '9'; end++ {
		n = addDigit(n, digits[end]-'0')
	}
	if s != "" && s[0] == '-' && n != math.MaxUint64 {
		n = -n
	}
	return n, digits[end:], end > 0
}

// addDigit returns n*10+d, or the largest number if that is too large.
func addDigit(n uint64, d byte) uint64 {
	if n > (math.MaxUint64-uint64(d))/10 {
		return math.MaxUint64
	}
	return n*10 + uint64(d)
}

// String returns the line as dmsetup prints it. Without parameters it ends in a blank.
func (s Spec) String() string {
	return fmt.Sprintf("%d %d %s %s", s.Start, s.Len, s.Type, s.Params)
}

// FormatTable returns the text of a table, with one line for each target.
func FormatTable(specs []Spec) string {
	var b strings.Builder
	for _, s := range specs {
		b.WriteString(s.String() + "\n")
	}
	return b.String()
}
