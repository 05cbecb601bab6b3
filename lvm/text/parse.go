package text

import (
	"fmt"
	"strconv"
	"strings"
)

// maxDepth is the maximum nesting of sections; LVM's own depth is four.
const maxDepth = 32

// Parse parses a whole text, which ends at its first NUL, if any. An error is an
// *Error.
func Parse(text string) (*Section, error) {
	text, _, _ = strings.Cut(text, "\x00")
	p := &parser{rest: text, line: 1}
	s := p.section(0)
	if p.err != nil {
		return nil, p.err
	}
	return s, nil
}

// parser reads from the front of rest. It stops at the first error.
type parser struct {
	rest string
	line int
	err  error
}

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = &Error{p.line, fmt.Sprintf(format, args...)}
		p.rest = ""
	}
}

// skip skips blanks, line ends and comments.
func (p *parser) skip() {
	for {
		trimmed := strings.TrimLeft(p.rest, " \t\r\n")
		p.advance(len(p.rest) - len(trimmed))
		if !strings.HasPrefix(p.rest, "#") {
			return
		}
		n := strings.IndexByte(p.rest, '\n')
		if n < 0 {
			n = len(p.rest)
		}
		p.advance(n)
	}
}

func (p *parser) advance(n int) {
	p.line += strings.Count(p.rest[:n], "\n")
	p.rest = p.rest[n:]
}

// take consumes c if it is next.
func (p *parser) take(c byte) bool {
	p.skip()
	if p.rest == "" || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

func (p *parser) want(c byte, where string) {
	if !p.take(c) {
		p.fail("%s: want %q, found %s", where, c, p.found())
	}
}

// found describes what is next, for errors.
func (p *parser) found() string {
	p.skip()
	if p.rest == "" {
		return "the end of the text"
	}
	line, _, _ := strings.Cut(p.rest, "\n")
	return strconv.Quote(line[:min(len(line), 20)])
}

// section reads entries up to the closing brace; at depth 0 up to the end of the
// text.
func (p *parser) section(depth int) *Section {
	if depth > maxDepth {
		p.fail("sections nest more than %d deep", maxDepth)
	}
	s := &Section{}
	seen := map[string]bool{}
	for p.err == nil {
		if p.skip(); p.rest == "" && depth == 0 || depth > 0 && p.take('}') {
			break
		}
		e := Entry{Line: p.line, Name: p.name()}
		if seen[e.Name] {
			p.fail("%s occurs twice in a section", e.Name)
		}
		seen[e.Name] = true
		p.content(&e, depth)
		s.Entries = append(s.Entries, e)
	}
	return s
}

func (p *parser) content(e *Entry, depth int) {
	if p.take('{') {
		e.Section = p.section(depth + 1)
		return
	}
	p.want('=', e.Name)
	if p.take('[') {
		e.Value = p.array()
		return
	}
	e.Value = p.scalar()
}

func nameByte(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c == '_' || c == '.' || c == '+' || c == '-'
}

func (p *parser) name() string {
	n := 0
	for n < len(p.rest) && nameByte(p.rest[n]) {
		n++
	}
	if n == 0 {
		p.fail("want a name, found %s", p.found())
	}
	if p.err != nil {
		return ""
	}
	name := p.rest[:n]
	p.rest = p.rest[n:]
	return name
}

func (p *parser) array() Array {
	a := Array{}
	if p.take(']') {
		return a
	}
	for p.err == nil {
		a = append(a, p.scalar())
		if p.take(']') {
			break
		}
		p.want(',', "array")
	}
	return a
}

func (p *parser) scalar() Value {
	if p.take('"') {
		return p.string()
	}
	n := 0
	for n < len(p.rest) && (nameByte(p.rest[n])) {
		n++
	}
	word := p.rest[:n]
	v := number(word)
	if v == nil {
		p.fail("want a value, found %s", p.found())
		return Int(0)
	}
	p.rest = p.rest[n:]
	return v
}

// number returns nil if word is not a number.
func number(word string) Value {
	digits := strings.TrimPrefix(word, "-")
	whole, fraction, float := strings.Cut(digits, ".")
	if whole == "" || strings.Trim(whole+fraction, "0123456789") != "" {
		return nil
	}
	if float {
		return Float(word)
	}
	n, err := strconv.ParseInt(word, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != word {
		return nil
	}
	return Int(n)
}

// string reads up to the closing quote. A backslash that is not before a quote or a
// backslash is kept.
func (p *parser) string() String {
	var b strings.Builder
	for i := 0; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == '"':
			p.advance(i + 1)
			return String(b.String())
		case c == '\\' && i+1 < len(p.rest) && (p.rest[i+1] == '"' || p.rest[i+1] == '\\'):
			i++
			b.WriteByte(p.rest[i])
		default:
			b.WriteByte(c)
		}
	}
	p.fail("a string has no closing quote")
	return ""
}
