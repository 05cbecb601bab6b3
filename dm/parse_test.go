package dm

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestParseTable(t *testing.T) {
	for _, c := range []struct {
		text string
		want []Spec
	}{
		{"", nil},
		{"\n  \n# all of it\n  # and this", nil},
		{"0 8 zero", []Spec{{0, 8, "zero", ""}}},
		{"  0   16   linear   /dev/a    3   ", []Spec{{0, 16, "linear", "/dev/a    3"}}},
		{"0 8 zero # the rest", []Spec{{0, 8, "zero", ""}}},
		{"0 8 zero#8", []Spec{{0, 8, "zero#8", ""}}},
		{"0 8 linear /a#b 0", []Spec{{0, 8, "linear", "/a"}}},
		{"0 8 linear /a 0 # x", []Spec{{0, 8, "linear", "/a 0 "}}},
		{"0 8 a\r\n8 8 b x\\ y", []Spec{{0, 8, "a", ""}, {8, 8, "b", `x\ y`}}},
		{"+1 2zero", []Spec{{1, 2, "zero", ""}}},
		{"-1 16 zero", []Spec{{1<<64 - 1, 16, "zero", ""}}},
		{"0 18446744073709551616 zero", []Spec{{0, 1<<64 - 1, "zero", ""}}},
		{"0 8 fifteencharacte", []Spec{{0, 8, "fifteencharacte", ""}}},
	} {
		if got, err := ParseTable(c.text); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %v, %v; want %v", c.text, got, err, c.want)
		}
	}
}

func TestParseTableRefuses(t *testing.T) {
	for _, c := range []struct {
		text string
		line int
		want string
	}{
		{"0 16", 1, "Invalid format on line 1 of table ."},
		{"0 8 zero\n\n# x\na 16 zero", 4, "Invalid format on line 4 of table ."},
		{"0 b zero", 1, "Invalid format on line 1 of table ."},
		{"0 - zero", 1, "Invalid format on line 1 of table ."},
		{"0 8 sixteencharacter", 1, "Target type name sixteencharacter is too long."},
	} {
		got, err := ParseTable(c.text)
		var e *TableError
		if !errors.As(err, &e) || e.Line != c.line || err.Error() != c.want || got != nil {
			t.Errorf("%q: %v, %v", c.text, got, err)
		}
	}
}

func TestParseConcise(t *testing.T) {
	zero := []Spec{{0, 8, "zero", ""}}
	for _, c := range []struct {
		text string
		want []Concise
	}{
		{"", nil},
		{"x,,,,0 8 zero", []Concise{{"x", "", -1, false, zero}}},
		{"x,,,,0 8 zero;", []Concise{{"x", "", -1, false, zero}}},
		{"x,,,,;", []Concise{{"x", "", -1, false, nil}}},
		{"x,,bad,,0 8 zero", []Concise{{"x", "", 0, false, zero}}},
		{`a\,b\;\\,U\ ,7,rw,0 8 zero`, []Concise{{`a,b;\`, "U ", 7, false, zero}}},
		{"y, U-1, 5x, ro, 0 8 linear /a 0,8 8 error;\n z,,,,0 8 zero\n",
			[]Concise{{"y", "U-1", 5, true, []Spec{{0, 8, "linear", "/a 0"}, {8, 8, "error", ""}}}, {"z", "", -1, false, zero}}},
	} {
		if got, err := ParseConcise(c.text); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %v, %v; want %v", c.text, got, err, c.want)
		}
	}
}

func TestParseConciseRefuses(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"x", "Five comma-separated fields are required for each device\nParsed 1 fields: name: x uuid: (null) minor: (null) flags: (null) table: (null)"},
		{"x,,,", "Incomplete entry: five comma-separated fields are required for each device\nParsed 4 fields: name: x uuid:  minor:  flags:  table: (null)"},
		{"x,,,,", "Incomplete entry: five comma-separated fields are required for each device\nParsed 5 fields: name: x uuid:  minor:  flags:  table: "},
		{`x\`, "Backslash must be followed by another character at end of string.\nParsed 1 fields: name: x uuid: (null) minor: (null) flags: (null) table: (null)"},
		{"x,,,rw ,0 8 zero", "Invalid flags parameter 'rw ' must be 'ro' or 'rw' or empty."},
		{"x,,,,0 zero", "Invalid format on line 1 of table ."},
	} {
		if got, err := ParseConcise(c.text); err == nil || err.Error() != c.want || got != nil {
			t.Errorf("%q: %v, %v", c.text, got, err)
		}
	}
	if got, err := ParseConcise("a,,,,0 8 zero;b"); err == nil || len(got) != 1 || got[0].Name != "a" {
		t.Errorf("the device before the wrong one: %v, %v", got, err)
	}
}

func TestFormatConcise(t *testing.T) {
	want := `x,,0,rw,0 8 zero ;a\,b,U-1,5,ro,0 8 linear 7:0 0,8 8 error `
	got := FormatConcise([]Concise{
		{"x", "", 0, false, []Spec{{0, 8, "zero", ""}}},
		{"a,b", "U-1", 5, true, []Spec{{0, 8, "linear", "7:0 0"}, {8, 8, "error", ""}}},
	})
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// FuzzParseTable checks that a parsed table is the same after printing and parsing.
func FuzzParseTable(f *testing.F) {
	for _, s := range []string{"0 8 zero", "# c\n0 16 linear /dev/a 0 # x\n16 8 error", "-1 +2zero\t#", "0 99999999999999999999 a\\ b \\#"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		specs, err := ParseTable(text)
		if err != nil {
			return
		}
		for i := range specs {
			specs[i].Params = strings.TrimRight(specs[i].Params, blanks)
		}
		again, err := ParseTable(FormatTable(specs))
		if err != nil || !reflect.DeepEqual(again, specs) {
			t.Fatalf("%q: %v, then %v, %v", text, specs, again, err)
		}
	})
}

// FuzzParseConcise does the same for lines of devices. The semicolon at the end avoids
// the special cases of a line's last character.
func FuzzParseConcise(f *testing.F) {
	for _, s := range []string{"x,,,,0 8 zero", `a\,b, U ,5,ro,0 8 linear /a 0,8 8 error;c,,,,;`, `\ ,\;,,rw,0 8 a \\;`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		devices, err := ParseConcise(text)
		if err != nil || len(devices) == 0 {
			return
		}
		for i := range devices {
			d := &devices[i]
			if d.Minor = max(d.Minor, -1); len(d.Table) == 0 {
				return
			}
			for j := range d.Table {
				d.Table[j].Params = strings.TrimRight(d.Table[j].Params, blanks)
			}
		}
		again, err := ParseConcise(FormatConcise(devices) + ";")
		if err != nil || !reflect.DeepEqual(again, devices) {
			t.Fatalf("%q: %v, then %v, %v", text, devices, again, err)
		}
	})
}
