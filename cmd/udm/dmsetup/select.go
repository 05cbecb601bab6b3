package dmsetup

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// The language of -S:
//
//	any  = all { ("||" | "#") all }
//	all  = one { ("&&" | ",") one }
//	one  = "!" one | "(" any ")" | FIELD op VALUE
//	op   = "=" "!=" ">" ">=" "<" "<=" for numbers, "=" "!=" "=~" "!~" for strings
//
// A VALUE may be quoted with either kind of quotes. =~ and !~ match a regular
// expression anywhere in the string.

// expr is a node of a selection; nil selects everything.
type expr struct {
	op    string // "||", "&&", "!", or a comparison
	args  []*expr
	field field
	value string
	num   int64
	re    *regexp.Regexp
}

// unknownField is the error for an unknown field.
type unknownField struct{ name, rest string }

func (e *unknownField) Error() string { return "unknown field " + e.name }

// syntaxError is any other error; rest is the text from the error on, and why, if not
// empty, says more.
type syntaxError struct{ rest, why string }

func (e *syntaxError) Error() string { return fmt.Sprintf("syntax error at %q", e.rest) }

// selectionRest returns the text of a selection from the error on.
func selectionRest(err error, text string) string {
	switch e := err.(type) {
	case *unknownField:
		return e.rest
	case *syntaxError:
		return e.rest
	}
	return text
}

type selectionParser struct{ rest string }

func parseSelection(text string) (*expr, error) {
	p := &selectionParser{text}
	e, err := p.list("||", "#", func() (*expr, error) { return p.list("&&", ",", p.one) })
	if err == nil && p.skip() != "" {
		err = &syntaxError{rest: p.rest}
	}
	return e, err
}

func (p *selectionParser) skip() string {
	p.rest = strings.TrimLeft(p.rest, " \t\n")
	return p.rest
}

// take removes the first token that the text starts with.
func (p *selectionParser) take(tokens ...string) string {
	p.skip()
	for _, tok := range tokens {
		if strings.HasPrefix(p.rest, tok) {
			p.rest = p.rest[len(tok):]
			return tok
		}
	}
	return ""
}

func (p *selectionParser) list(op, other string, item func() (*expr, error)) (*expr, error) {
	e := &expr{op: op}
	for {
		x, err := item()
		if err != nil {
			return nil, err
		}
		e.args = append(e.args, x)
		if p.take(op, other) == "" {
			return e, nil
		}
	}
}

func (p *selectionParser) one() (*expr, error) {
	switch p.take("!", "(") {
	case "!":
		x, err := p.one()
		return &expr{op: "!", args: []*expr{x}}, err
	case "(":
		x, err := p.list("||", "#", func() (*expr, error) { return p.list("&&", ",", p.one) })
		if err == nil && p.take(")") == "" {
			err = &syntaxError{rest: p.rest}
		}
		return x, err
	}
	return p.comparison()
}

func (p *selectionParser) comparison() (*expr, error) {
	start := p.skip()
	n := strings.IndexFunc(start, func(r rune) bool {
		return r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
	})
	if n < 0 {
		n = len(start)
	}
	name := start[:n]
	p.rest = start[n:]
	fs := match(name)
	switch {
	case name == "":
		return nil, &syntaxError{start, "Expecting field name"}
	case len(fs) != 1 || fs[0].section == special:
		return nil, &unknownField{name, start}
	}
	e := &expr{field: fs[0]}
	if e.op = p.take("=~", "!~", "!=", ">=", "<=", "=", ">", "<"); e.op == "" {
		return nil, &syntaxError{rest: start}
	}
	e.value = p.word()
	return e, e.prepare(start)
}

// word reads a value up to its end.
func (p *selectionParser) word() string {
	p.skip()
	if q := p.take(`"`, `'`); q != "" {
		v, rest, _ := strings.Cut(p.rest, q)
		p.rest = rest
		return v
	}
	end := strings.IndexAny(p.rest, "&|,#)")
	if end < 0 {
		end = len(p.rest)
	}
	v := strings.TrimRight(p.rest[:end], " \t\n")
	p.rest = p.rest[end:]
	return v
}

// prepare checks operator and value against the field.
func (e *expr) prepare(start string) (err error) {
	switch matching := e.op == "=~" || e.op == "!~"; {
	case matching && !e.field.number:
		e.re, err = regexp.Compile(e.value)
	case matching, !e.field.number && e.op != "=" && e.op != "!=":
		return &syntaxError{rest: start}
	case e.field.number:
		if e.num, err = strconv.ParseInt(e.value, 10, 64); err != nil {
			return &syntaxError{start, "Failed to parse numeric value for selection field " + e.field.id + "."}
		}
	}
	if err != nil {
		return &syntaxError{rest: start}
	}
	return nil
}

// fields returns the fields of an expression.
func (e *expr) fields() []field {
	if e == nil {
		return nil
	}
	if e.field.id != "" {
		return []field{e.field}
	}
	var fs []field
	for _, a := range e.args {
		fs = append(fs, a.fields()...)
	}
	return fs
}

// matches reports whether a row is selected.
func (e *expr) matches(r row) bool {
	if e == nil {
		return true
	}
	switch e.op {
	case "!":
		return !e.args[0].matches(r)
	case "||", "&&":
		for _, a := range e.args {
			if a.matches(r) == (e.op == "||") {
				return e.op == "||"
			}
		}
		return e.op == "&&"
	}
	return e.compare(e.field.value(r))
}

func (e *expr) compare(s string) bool {
	switch {
	case e.op == "=~":
		return e.re.MatchString(s)
	case e.op == "!~":
		return !e.re.MatchString(s)
	}
	n := strings.Compare(s, e.value)
	if e.field.number {
		n = compare(s, strconv.FormatInt(e.num, 10), true)
	}
	switch e.op {
	case "=":
		return n == 0
	case "!=":
		return n != 0
	case ">":
		return n > 0
	case ">=":
		return n >= 0
	case "<":
		return n < 0
	}
	return n <= 0
}
