package text_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"udm/lvm/text"
)

// zeroLines takes away where entries were read.
func zeroLines(s *text.Section) *text.Section {
	for i := range s.Entries {
		s.Entries[i].Line = 0
		if sub := s.Entries[i].Section; sub != nil {
			zeroLines(sub)
		}
	}
	return s
}

// again parses, prints and parses, and fails unless both are equal.
func again(t *testing.T, in string, s *text.Section) {
	t.Helper()
	printed := s.String()
	s2, err := text.Parse(printed)
	if err != nil {
		t.Fatalf("%q printed as %q: %v", in, printed, err)
	}
	if !reflect.DeepEqual(zeroLines(s), zeroLines(s2)) {
		t.Fatalf("%q printed as %q is another text", in, printed)
	}
	if s2.String() != printed {
		t.Fatalf("%q prints as %q, and then as %q", in, printed, s2.String())
	}
}

func TestParse(t *testing.T) {
	in := "vg {\nid=\"x-1\" # no comment is kept\n\tn = -5\nunknown.key+1 = 3.50\nlist = [ \"a\\\"b\\\\c\\d\", 0,\n-1 ]\nnone = []\n\nsub{}}\nversion = 1\n\x00rest"
	s, err := text.Parse(in)
	if err != nil {
		t.Fatal(err)
	}
	want := "vg {\nid = \"x-1\"\nn = -5\nunknown.key+1 = 3.50\nlist = [\"a\\\"b\\\\c\\\\d\", 0, -1]\nnone = []\n\nsub {\n}\n}\nversion = 1\n"
	if s.String() != want {
		t.Errorf("got %q, want %q", s.String(), want)
	}
	if l := s.Section("vg").Find("sub").Line; l != 9 {
		t.Errorf("sub is in line %d, want 9", l)
	}
	again(t, in, s)
}

func TestParseErrors(t *testing.T) {
	for in, want := range map[string]string{
		"a":                         `line 1: a: want '=', found the end of the text`,
		"a = ":                      `line 1: want a value, found the end of the text`,
		"a {\nb = 1\n":              `line 3: want a name, found the end of the text`,
		"a = 1\n}":                  `line 2: want a name, found "}"`,
		"a = \"x":                   `line 1: a string has no closing quote`,
		"a = [1":                    `line 1: array: want ',', found the end of the text`,
		"a = [1,]":                  `line 1: want a value, found "]"`,
		"a = [[1]]":                 `line 1: want a value, found "[1]]"`,
		"a = 010":                   `line 1: want a value, found "010"`,
		"a = 0x10":                  `line 1: want a value, found "0x10"`,
		"a = -0":                    `line 1: want a value, found "-0"`,
		"a = 9223372036854775808":   `line 1: want a value, found "9223372036854775808"`,
		"a = word":                  `line 1: want a value, found "word"`,
		"a/b = 1":                   `line 1: a: want '=', found "/b = 1"`,
		"a = 1\nb = 2\na {}":        `line 3: a occurs twice in a section`,
		strings.Repeat("a {\n", 40): `line 33: sections nest more than 32 deep`,
	} {
		_, err := text.Parse(in)
		var typed *text.Error
		if !errors.As(err, &typed) || err.Error() != want {
			t.Errorf("%q: got %v, want %s", in, err, want)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add("vg {\nid = \"x\"\nstatus = [\"READ\", 1]\nf = 1.5\n}\n# c\nversion = 1\n")
	f.Fuzz(func(t *testing.T, in string) {
		s, err := text.Parse(in)
		var typed *text.Error
		if err != nil && !errors.As(err, &typed) {
			t.Fatal(err)
		}
		if err == nil {
			again(t, in, s)
		}
	})
}
