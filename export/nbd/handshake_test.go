package nbd_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"udm/export/nbd"
	"udm/internal/nbd/proto"
)

const fixed = proto.FlagFixedNewstyle | proto.FlagNoZeroes

// The lines that describe the test disk.
const (
	goExport = "7 info export 1048576 flags 0xd6d"
	goBlock  = "7 info block 512 4096 33554432"
)

func TestOptionsAreAnswered(t *testing.T) {
	long := strings.Repeat("x", 4097)
	for _, c := range []struct {
		name string
		tape *tape
		want []string
	}{
		{"list", newTape(fixed).option(proto.OptList), []string{`3 server "disk" "a disk"`, "3 ack"}},
		{"list with data", newTape(fixed).option(proto.OptList, []byte("x")), []string{"3 invalid"}},
		{"abort", newTape(fixed).option(proto.OptAbort, []byte("ignored")).option(proto.OptList), []string{"2 ack"}},
		{"unknown options", newTape(fixed).option(4, []byte("abc")).option(99).option(proto.OptList),
			[]string{"4 unsup", "99 unsup", `3 server "disk" "a disk"`, "3 ack"}},
		{"tls when off", newTape(fixed).option(proto.OptStartTLS), []string{"5 policy"}},
		{"tls with data", newTape(fixed).option(proto.OptStartTLS, []byte{0}), []string{"5 invalid"}},
		{"oversize option", newTape(fixed).option(proto.OptList, make([]byte, 70000)).option(proto.OptAbort), []string{"3 too-big", "2 ack"}},
		{"go", newTape(fixed).option(proto.OptGo, str("disk"), u16s(0)), []string{goExport, goBlock, "7 ack"}},
		{"default export", newTape(fixed).option(proto.OptGo, str(""), u16s(2, proto.InfoName, proto.InfoDescription)),
			[]string{goExport, goBlock, `7 info 1 "disk"`, `7 info 2 "a disk"`, "7 ack"}},
		{"unknown information", newTape(fixed).option(proto.OptInfo, str("disk"), u16s(2, 77, 0x8000)),
			[]string{strings.Replace(goExport, "7", "6", 1), strings.Replace(goBlock, "7", "6", 1), "6 ack"}},
		{"unknown export", newTape(fixed).option(proto.OptInfo, str("nope"), u16s(0)).option(proto.OptGo, str("nope"), u16s(0)),
			[]string{"6 unknown", "7 unknown"}},
		{"long name", newTape(fixed).option(proto.OptGo, str(long), u16s(0)), []string{"7 too-big"}},
		{"name that is longer in quotes", newTape(fixed).option(proto.OptGo, str(long[1:][:4000]+strings.Repeat("\x01", 96)), u16s(0)), []string{"7 unknown"}},
		{"long query", newTape(fixed).option(proto.OptStructuredReply).option(proto.OptSetMetaContext, str("disk"), u32(1), str(strings.Repeat("é", 9000))),
			[]string{"8 ack", "10 invalid"}},
		{"go without name", newTape(fixed).option(proto.OptGo), []string{"7 invalid"}},
		{"go with a long name length", newTape(fixed).option(proto.OptGo, u32(1<<31), u16s(0)), []string{"7 invalid"}},
		{"go with too many requests", newTape(fixed).option(proto.OptGo, str("disk"), u16s(3, 1)), []string{"7 invalid"}},
		{"go with a tail", newTape(fixed).option(proto.OptGo, str("disk"), u16s(0), []byte{1}), []string{"7 invalid"}},
		{"structured", newTape(fixed).option(proto.OptStructuredReply).option(proto.OptStructuredReply, []byte{1}), []string{"8 ack", "8 invalid"}},
		{"extended", newTape(fixed).option(proto.OptExtendedHeaders).option(proto.OptStructuredReply).option(proto.OptExtendedHeaders, []byte{1}),
			[]string{"11 ack", "8 ext-header-reqd", "11 invalid"}},
		{"context without structure", newTape(fixed).option(proto.OptSetMetaContext, str("disk"), u32(0)).option(proto.OptListMetaContext, str("disk"), u32(0)),
			[]string{"10 invalid", "9 invalid"}},
		{"list all contexts", newTape(fixed).option(proto.OptStructuredReply).option(proto.OptListMetaContext, str("disk"), u32(0)),
			[]string{"8 ack", "9 context 0 base:allocation", "9 ack"}},
		{"list a namespace", newTape(fixed).option(proto.OptStructuredReply).option(proto.OptListMetaContext, str("disk"), u32(2), str("qemu:"), str("base:")),
			[]string{"8 ack", "9 context 0 base:allocation", "9 ack"}},
		{"list nothing", newTape(fixed).option(proto.OptStructuredReply).option(proto.OptListMetaContext, str("disk"), u32(1), str("base:other")),
			[]string{"8 ack", "9 ack"}},
		{"set", newTape(fixed).option(proto.OptStructuredReply).option(proto.OptSetMetaContext, str("disk"), u32(1), str("base:allocation")),
			[]string{"8 ack", "10 context 1 base:allocation", "10 ack"}},
		{"set a namespace", newTape(fixed).option(proto.OptStructuredReply).option(proto.OptSetMetaContext, str("disk"), u32(1), str("base:")),
			[]string{"8 ack", "10 ack"}},
		{"set nothing", newTape(fixed).option(proto.OptStructuredReply).option(proto.OptSetMetaContext, str("disk"), u32(0)),
			[]string{"8 ack", "10 ack"}},
		{"set without namespace", newTape(fixed).option(proto.OptStructuredReply).option(proto.OptSetMetaContext, str("disk"), u32(1), str("allocation")),
			[]string{"8 ack", "10 invalid"}},
		{"set on an unknown export", newTape(fixed).option(proto.OptStructuredReply).option(proto.OptSetMetaContext, str("no"), u32(1), str("base:allocation")),
			[]string{"8 ack", "10 unknown"}},
		{"set with a short query", newTape(fixed).option(proto.OptStructuredReply).option(proto.OptSetMetaContext, str("disk"), u32(1), u32(9), []byte("base:")),
			[]string{"8 ack", "10 invalid"}},
		{"set with too few queries", newTape(fixed).option(proto.OptStructuredReply).option(proto.OptSetMetaContext, str("disk"), u32(1<<30)),
			[]string{"8 ack", "10 invalid"}},
		{"export name", newTape(fixed).option(proto.OptExportName, []byte("disk")), []string{"export 1048576 flags 0xd6d"}},
		{"export name with zeroes", newTape(proto.FlagFixedNewstyle).option(proto.OptExportName, []byte("")), []string{"export 1048576 flags 0xd6d zeroes"}},
		{"plain newstyle", newTape(0).option(proto.OptExportName, []byte("disk")), []string{"export 1048576 flags 0xd6d zeroes"}},
		{"structured flags", newTape(fixed).option(proto.OptStructuredReply).option(proto.OptExportName, []byte("disk")),
			[]string{"8 ack", "export 1048576 flags 0xded"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			said, err := c.tape.play(t, nbd.Config{Exports: disk()})
			if err != nil {
				t.Error(err)
			}
			expect(t, said, c.want...)
		})
	}
}

func TestHandshakeThatCannotGoOnIsCut(t *testing.T) {
	half := newTape(fixed)
	half.in.Write([]byte("IHAVE"))
	magic := newTape(fixed)
	magic.in.WriteString("IHAVEOPS\x00\x00\x00\x03\x00\x00\x00\x00")
	short := newTape(fixed)
	short.in.WriteString("IHAVEOPT\x00\x00\x00\x03\x00\x00\x00\x08abc")
	many := newTape(fixed)
	for range 1025 {
		many.option(99)
	}
	for name, tp := range map[string]*tape{
		"unknown client flags":      newTape(1 << 7),
		"half an option":            half,
		"wrong magic":               magic,
		"half the data":             short,
		"too many refused options":  many,
		"unknown name":              newTape(fixed).option(proto.OptExportName, []byte("nope")),
		"export name when extended": newTape(fixed).option(proto.OptExtendedHeaders).option(proto.OptExportName, []byte("disk")),
	} {
		if said, err := tp.play(t, nbd.Config{Exports: disk()}); err == nil {
			t.Errorf("%s: went on with %q", name, said)
		}
	}
}

// refusing is a set of exports that are all being removed.
type refusing struct{ nbd.Fixed }

func (refusing) Open(string) (*nbd.Export, error) { return nil, errors.New("disk is being removed") }

func TestRefusedExport(t *testing.T) {
	said, err := newTape(fixed).option(proto.OptGo, str("disk"), u16s(0)).option(proto.OptAbort).play(t, nbd.Config{Exports: refusing{disk()}})
	if err != nil {
		t.Error(err)
	}
	expect(t, said, "7 policy", "2 ack")
}

func TestDefaultExportNeedsToBeClear(t *testing.T) {
	two := append(disk(), disk()...)
	two[1].Name = "other"
	said, _ := newTape(fixed).option(proto.OptGo, str(""), u16s(0)).play(t, nbd.Config{Exports: two})
	expect(t, said, "7 unknown")
	two[1].Name = ""
	said, _ = newTape(fixed).option(proto.OptGo, str(""), u16s(1, proto.InfoName)).play(t, nbd.Config{Exports: two})
	expect(t, said, goExport, goBlock, `7 info 1 ""`, "7 ack")
}

// counting counts the attached clients.
type counting struct {
	nbd.Fixed
	open int
}

func (c *counting) Open(name string) (*nbd.Export, error) {
	e, err := c.Fixed.Open(name)
	if err != nil {
		return nil, fs.ErrNotExist
	}
	c.open++
	e.Release = func() { c.open-- }
	return e, nil
}

func TestEveryOpenIsReleased(t *testing.T) {
	for name, tp := range map[string]*tape{
		"info":       newTape(fixed).option(proto.OptInfo, str(""), u16s(0)),
		"context":    newTape(fixed).option(proto.OptStructuredReply).option(proto.OptSetMetaContext, str("disk"), u32(0)),
		"go":         newTape(fixed).attach("extended", "disk"),
		"disconnect": newTape(fixed).attach("simple", "disk").request(proto.CmdDisc, 0, 0, 0),
		"nonsense":   newTape(fixed).attach("simple", "disk").request(proto.CmdWrite, 0, 0, 512, make([]byte, 600)...),
	} {
		c := &counting{Fixed: disk()}
		tp.play(t, nbd.Config{Exports: c})
		if c.open != 0 {
			t.Errorf("%s: %d left open", name, c.open)
		}
	}
}
