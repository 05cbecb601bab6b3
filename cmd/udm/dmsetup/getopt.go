package dmsetup

import (
	"fmt"
	"strings"
)

// option is a command-line option: its long name, its letter or 0, and whether it
// takes a value.
type option struct {
	name   string
	letter byte
	value  bool
}

// options are all of dmsetup's options. The letter v takes no value although
// --verbose does.
var options = []option{
	{"readonly", 'r', false}, {"checks", 0, false}, {"columns", 'c', false}, {"concise", 0, false},
	{"count", 0, true}, {"deferred", 0, false}, {"select", 'S', true}, {"exec", 0, true},
	{"force", 'f', false}, {"gid", 'G', true}, {"help", 'h', false}, {"inactive", 0, false},
	{"interval", 0, true}, {"manglename", 0, true}, {"major", 'j', true}, {"minor", 'm', true},
	{"mode", 'M', true}, {"nameprefixes", 0, false}, {"noflush", 0, false}, {"noheadings", 0, false},
	{"nolockfs", 0, false}, {"noopencount", 0, false}, {"notable", 'n', false}, {"udevcookie", 0, true},
	{"noudevrules", 0, false}, {"noudevsync", 0, false}, {"options", 'o', true}, {"readahead", 0, true},
	{"retry", 0, false}, {"rows", 0, false}, {"separator", 0, true}, {"setuuid", 0, false},
	{"showkeys", 0, false}, {"sort", 'O', true}, {"table", 0, true}, {"target", 0, true},
	{"tree", 0, false}, {"uid", 'U', true}, {"uuid", 'u', true}, {"unbuffered", 0, false},
	{"unquoted", 0, false}, {"verbose", 'v', true}, {"verifyudev", 0, false}, {"version", 0, false},
	{"yes", 'y', false}, {"addnodeonresume", 0, false}, {"addnodeoncreate", 0, false},
}

// given is the options of a run, by long name.
type given struct {
	count map[string]int
	value map[string]string
}

func (g given) has(name string) bool { return g.count[name] > 0 }

func (g given) set(name, value string) {
	g.count[name]++
	g.value[name] = value
}

// parseOptions parses a command line like GNU getopt_long: options and operands in
// any order, abbreviated long names, "--" ends the options.
func parseOptions(args []string) (g given, operands []string, err error) {
	g = given{map[string]int{}, map[string]string{}}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			return g, append(operands, args...), nil
		case strings.HasPrefix(arg, "--"):
			args, err = g.long(arg[2:], args)
		case len(arg) > 1 && arg[0] == '-':
			args, err = g.letters(arg[1:], args)
		default:
			operands = append(operands, arg)
		}
		if err != nil {
			return g, nil, err
		}
	}
	return g, operands, nil
}

func (g given) long(arg string, rest []string) ([]string, error) {
	name, value, hasValue := strings.Cut(arg, "=")
	o, err := findLong(name)
	switch {
	case err != nil:
		return nil, err
	case hasValue && !o.value:
		return nil, fmt.Errorf("option '--%s' doesn't allow an argument", o.name)
	case !o.value || hasValue:
		g.set(o.name, value)
		return rest, nil
	case len(rest) == 0:
		return nil, fmt.Errorf("option '--%s' requires an argument", o.name)
	}
	g.set(o.name, rest[0])
	return rest[1:], nil
}

func findLong(name string) (option, error) {
	var match []option
	for _, o := range options {
		if o.name == name {
			return o, nil
		}
		if strings.HasPrefix(o.name, name) {
			match = append(match, o)
		}
	}
	switch len(match) {
	case 0:
		return option{}, fmt.Errorf("unrecognized option '--%s'", name)
	case 1:
		return match[0], nil
	}
	msg := fmt.Sprintf("option '--%s' is ambiguous; possibilities:", name)
	for _, o := range match {
		msg += " '--" + o.name + "'"
	}
	return option{}, fmt.Errorf("%s", msg)
}

func (g given) letters(letters string, rest []string) ([]string, error) {
	for i := 0; i < len(letters); i++ {
		o, ok := findLetter(letters[i])
		if !ok {
			return nil, fmt.Errorf("invalid option -- '%c'", letters[i])
		}
		if !o.value || o.letter == 'v' {
			g.set(o.name, "")
			continue
		}
		if value := letters[i+1:]; value != "" {
			g.set(o.name, value)
			return rest, nil
		}
		if len(rest) == 0 {
			return nil, fmt.Errorf("option requires an argument -- '%c'", o.letter)
		}
		g.set(o.name, rest[0])
		return rest[1:], nil
	}
	return rest, nil
}

func findLetter(c byte) (option, bool) {
	if c == 'C' {
		c = 'c'
	}
	for _, o := range options {
		if o.letter == c && c != 0 {
			return o, true
		}
	}
	return option{}, false
}

// atoi is C's: the number at the start of s, or 0.
func atoi(s string) int {
	n, sign := 0, 1
	s = strings.TrimLeft(s, " \t\n\v\f\r")
	if s != "" && (s[0] == '-' || s[0] == '+') {
		if s[0] == '-' {
			sign = -1
		}
		s = s[1:]
	}
	for i := 0; i < len(s) && s[i] >= '0' && s[i] <= '9' && n < 1<<40; i++ {
		n = n*10 + int(s[i]-'0')
	}
	return int(int32(sign * n))
}
