package dmsetup

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"udm/ctl"
)

func TestOptions(t *testing.T) {
	for line, want := range map[string]string{
		"ls":                          "[] [ls]",
		"create -u U x --notable":     "[notable= uuid=U] [create x]",
		"create x -nuU":               "[notable= uuid=U] [create x]",
		"create --uu=U x --no -- -r":  "option '--no' is ambiguous",
		"create --uu=U x --not -- -r": "[notable= uuid=U] [create x -r]",
		"info -Co name":               "[columns= options=name] [info]",
		"info -v -v":                  "[verbose=] [info]",
		"info --verbose 2":            "[verbose=2] [info]",
		"info -":                      "[] [info -]",
		"info --noheadings=x":         "option '--noheadings' doesn't allow an argument",
		"info -o":                     "option requires an argument -- 'o'",
		"info --options":              "option '--options' requires an argument",
		"info -x":                     "invalid option -- 'x'",
		"info --bogus":                "unrecognized option '--bogus'",
	} {
		g, operands, err := parseOptions(strings.Fields(line))
		got := fmt.Sprint(err)
		if err == nil {
			var set []string
			for _, o := range options {
				if g.has(o.name) {
					set = append(set, o.name+"="+g.value[o.name])
				}
			}
			slices.Sort(set)
			got = fmt.Sprint(set, " ", operands)
		}
		if !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", line, got, want)
		}
	}
}

func TestAtoi(t *testing.T) {
	for s, want := range map[string]int{"": 0, "7": 7, " 12x": 12, "-3": -3, "+4": 4, "x1": 0, "4294967297": 1} {
		if got := atoi(s); got != want {
			t.Errorf("%q: %d, want %d", s, got, want)
		}
	}
}

func TestMangling(t *testing.T) {
	for _, c := range []struct {
		mode     mangling
		in, want string
	}{
		{auto, "plain-1.2_3", "plain-1.2_3"},
		{auto, "a b", `a\x20b`},
		{auto, `a\x20b`, `a\x20b`},
		{auto, `a\x20b c`, "mixed"},
		{auto, `a\x`, "mixed"},
		{auto, `a\x5cx20`, "more than once"},
		{hex, `a\x20b`, `a\x5cx20b`},
		{hex, "ä", `\xc3\xa4`},
		{none, "a b", "a b"},
		{auto, strings.Repeat(" ", 40), "too long"},
	} {
		got, err := c.mode.mangle(c.in, "name")
		if err != nil {
			got = err.Error()
		}
		if got != c.want && (err == nil || !strings.Contains(got, c.want)) {
			t.Errorf("%s %q: %q, want %q", c.mode, c.in, got, c.want)
		}
	}
}

// What is mangled comes back, whatever it was.
func FuzzMangling(f *testing.F) {
	f.Add("a b/c\\")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := hex.mangle(s, "name")
		if err != nil {
			return
		}
		if back := hex.unmangle(m); back != s {
			t.Errorf("%q becomes %q becomes %q", s, m, back)
		}
		for i := range len(m) {
			if m[i] != '\\' && !whitelisted(m[i]) {
				t.Errorf("%q has a bad character", m)
			}
		}
	})
}

func rowOf(d ctl.Device) row { return row{t: &tool{mangling: auto}, dev: &d} }

func TestSelection(t *testing.T) {
	d := ctl.Device{Name: "base", UUID: "LVM-x", Opens: 2, Targets: 1, Live: true, Number: ctl.Number{Major: 254, Minor: 3}}
	for text, want := range map[string]string{
		"name=base":                       "true",
		`name="base"`:                     "true",
		"name=bas":                        "false",
		"name=~^ba":                       "true",
		"name!~^ba":                       "false",
		"open>1":                          "true",
		"open >= 3":                       "false",
		"open<3 && minor=3":               "true",
		"open<3,minor=4":                  "false",
		"name=x || open=2":                "true",
		"name=x # open=3":                 "false",
		"!name=x":                         "true",
		"!(name=x || open=2)":             "false",
		"(name=x || open=2) && uuid=~LVM": "true",
		"nosuch=1":                        "unknown field nosuch",
		"selected=1":                      "unknown field selected",
		"open=~1":                         "syntax error",
		"name>a":                          "syntax error",
		"open=x":                          "syntax error",
		"name=~[":                         "syntax error",
		"name":                            "syntax error",
		"(name=x":                         "syntax error",
		"name=x)":                         "syntax error",
		"name=x &&":                       "syntax error",
		"":                                "syntax error",
	} {
		e, err := parseSelection(text)
		got := fmt.Sprint(err)
		if err == nil {
			got = fmt.Sprint(e.matches(rowOf(d)))
		}
		if !strings.HasPrefix(got, want) {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func FuzzSelection(f *testing.F) {
	f.Add("!(name=~^a || open>=2) && uuid!='x'")
	f.Fuzz(func(t *testing.T, text string) {
		if e, err := parseSelection(text); err == nil {
			e.matches(rowOf(ctl.Device{Name: "a"}))
		}
	})
}

func TestSplitLVM(t *testing.T) {
	for name, want := range map[string]splitName{
		"vg-lv":             {"LVM", "vg", "lv", ""},
		"vg--a-lv--b-layer": {"LVM", "vg-a", "lv-b", "layer"},
		"vg":                {"LVM", "vg", "", ""},
		"a-b-c-d":           {"LVM", "a", "b", "c-d"},
	} {
		if got := splitLVM("LVM", name); got != want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// draw shows the tree of devices that use each other as uses says: "a:b c".
func draw(t *testing.T, options string, width int, uses ...string) string {
	t.Helper()
	var ds []ctl.Device
	numbers := map[string]ctl.Number{}
	number := func(name string) ctl.Number {
		if _, ok := numbers[name]; !ok {
			numbers[name] = ctl.Number{Major: 254, Minor: uint32(len(numbers))}
		}
		return numbers[name]
	}
	for _, u := range uses {
		name, below, _ := strings.Cut(u, ":")
		d := ctl.Device{Name: name, Number: number(name), Live: true, Disk: true}
		for _, b := range strings.Fields(below) {
			n := number(b)
			if b == strings.ToUpper(b) {
				n.Major = 7
			}
			d.Deps = append(d.Deps, ctl.Dep{Number: n, Name: "block-" + b})
		}
		ds = append(ds, d)
	}
	var out bytes.Buffer
	w := bufio.NewWriter(&out)
	tl := &tool{Streams: Streams{Width: width}, ctx: context.Background(), out: w, mangling: auto,
		given: given{map[string]int{}, map[string]string{"options": options}}}
	style, err := tl.parseTreeStyle()
	if err != nil {
		t.Fatal(err)
	}
	p := &treePrinter{t: tl, tree: buildTree(ds), style: style, width: 80, x: 1}
	if width > 3 {
		p.width = width - 3
	}
	p.walk(p.tree.root, 0)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestTree(t *testing.T) {
	uses := []string{"base:A B", "lone:", "mid:base", "top:mid base"}
	for options, want := range map[string]string{
		"ascii,nodevice":            "lone\ntop\n |-mid\n |  `-base\n `-base\n",
		"ascii,nodevice,inverted":   " `-base\n    |-mid\n    |  `-top\n    `-top\n `-base\n    |-mid\n    |  `-top\n    `-top\nlone\n",
		"ascii,compact":             "lone (254:3)\ntop (254:5)-+-mid (254:4)---base (254:0)-+- (7:1)\n            |                                  `- (7:2)\n            `-base (254:0)-+- (7:1)\n                           `- (7:2)\n",
		"ascii,nodevice,blkdevname": "lone <dm-3>\ntop <dm-5>\n |-mid <dm-4>\n |  `-base <dm-0>\n |     |- <block-A>\n |     `- <block-B>\n `-base <dm-0>\n    |- <block-A>\n    `- <block-B>\n",
		"nodevice,utf":              "lone\ntop\n ├─mid\n │  └─base\n └─base\n",
	} {
		if got := draw(t, options, 0, uses...); got != want {
			t.Errorf("%s:\n%swant\n%s", options, got, want)
		}
	}
}

// A line that is too long ends in dots; the last column holds a character if it
// is the last one.
func TestTreeIsCutAtTheTerminal(t *testing.T) {
	for name, want := range map[string]string{
		"abcdefg":  "abcdefg\n",
		"abcdefgh": "abcdef...\n",
	} {
		if got := draw(t, "ascii,nodevice", 10, name+":"); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
	if got := draw(t, "ascii,nodevice,notrunc", 10, "abcdefghijkl:"); got != "abcdefghijkl\n" {
		t.Errorf("%q", got)
	}
}

func TestReportWords(t *testing.T) {
	if got := words(",a,,b,"); !reflect.DeepEqual(got, []string{"a", "b", ""}) && !reflect.DeepEqual(got, []string{"a", "b"}) {
		t.Errorf("%q", got)
	}
	for word, want := range map[string]int{"name": 1, "NAME": 1, "name_uuid": 1, "tables_loaded": 1, "tablesloaded": 1,
		"name_all": 7, "splitname_all": 4, "nosuch": 0, "": 0} {
		if got := len(match(word)); got != want {
			t.Errorf("%q matches %d fields, want %d", word, got, want)
		}
	}
}

func TestHiddenKeys(t *testing.T) {
	tl := &tool{given: given{map[string]int{}, map[string]string{}}}
	table := call{cmd: find("table")}
	for in, want := range map[string]string{
		"aes deadbeef 0 7:0 0":      "aes 00000000 0 7:0 0",
		"aes - 0 7:0 0":             "aes 0 0 7:0 0",
		"aes :32:logon:key 0 7:0 0": "aes :32:logon:key 0 7:0 0",
		"aes":                       "aes",
		"aes beef":                  "aes 0000",
	} {
		if got := tl.hideKeys(table, ctl.Line{Target: "crypt", Params: in}); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
	if got := tl.hideKeys(table, ctl.Line{Target: "linear", Params: "a beef"}); got != "a beef" {
		t.Error(got)
	}
}
