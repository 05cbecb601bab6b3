package nbd_test

import (
	"fmt"
	"testing"

	"udm/blk"
	"udm/export"
	"udm/export/nbd"
	"udm/internal/nbd/proto"
)

// mapped is the disk with contexts of its own: the first 4 KiB are dirty, and the
// last context cannot be read.
func mapped(more ...export.Context) nbd.Fixed {
	x := disk()
	x[0].Contexts = func() []export.Context {
		dirty := func(sector, sectors uint64) ([]export.Run, error) {
			if sector >= 8 {
				return []export.Run{{Sectors: sectors}}, nil
			}
			runs := []export.Run{{Sectors: min(sectors, 8-sector), Status: 1}}
			if left := sectors - runs[0].Sectors; left > 0 {
				runs = append(runs, export.Run{Sectors: left})
			}
			return runs, nil
		}
		broken := func(uint64, uint64) ([]export.Run, error) { return nil, blk.IOErr }
		return append([]export.Context{{Name: "qemu:dirty-bitmap:a", Status: dirty}, {Name: "qemu:dirty-bitmap:b", Status: broken}}, more...)
	}
	return x
}

func queries(names ...string) []byte {
	p := u32(uint32(len(names)))
	for _, n := range names {
		p = append(p, str(n)...)
	}
	return p
}

func TestContextsAreListed(t *testing.T) {
	all := []string{"base:allocation", "qemu:dirty-bitmap:a", "qemu:dirty-bitmap:b"}
	for _, c := range []struct {
		queries, want []string
	}{
		{nil, all}, {[]string{"qemu:"}, all[1:]}, {[]string{"qemu:dirty-bitmap:"}, all[1:]}, {[]string{"base:", "qemu:dirty-bitmap:b"}, []string{all[0], all[2]}},
		{[]string{"qemu:dirty-bitmap"}, nil}, {[]string{"qemu:allocation-depth", "x-y:"}, nil},
	} {
		want := []string{"8 ack"}
		for _, n := range c.want {
			want = append(want, "9 context 0 "+n)
		}
		tp := newTape(fixed).option(proto.OptStructuredReply).option(proto.OptListMetaContext, str("disk"), queries(c.queries...))
		said, err := tp.play(t, nbd.Config{Exports: mapped()})
		if err != nil {
			t.Error(err)
		}
		expect(t, said, append(want, "9 ack")...)
	}
}

// A block status has a chunk for each context that was selected, under its number.
func TestContextsAreAsked(t *testing.T) {
	for _, mode := range []proto.Option{proto.OptStructuredReply, proto.OptExtendedHeaders} {
		tp := newTape(fixed).option(mode).option(proto.OptSetMetaContext, str("disk"), queries("qemu:dirty-bitmap:a", "base:allocation", "no:such", "qemu:")).
			option(proto.OptGo, str("disk"), u16s(0))
		n := ""
		if tp.mode = "structured"; mode == proto.OptExtendedHeaders {
			tp.mode, n = "extended", "n=1 "
		}
		tp.request(proto.CmdBlockStatus, 0, 0, 1<<20).request(proto.CmdBlockStatus, proto.CmdFlagReqOne, 4096, 4096)
		want := []string{"#1 status 1 " + n + "1048576/3 …", "#1 status 2 4096/1 1044480/0", "#2 status 1 " + n + "4096/3 …", "#2 status 2 " + n + "4096/0"}
		if n != "" {
			want[1] = "#1 status 2 n=2 4096/1 1044480/0"
			tp.next++
			p := be.AppendUint64(nil, 8192)
			p = append(append(p, u32(2)...), u32(1)...)
			tp.in.Write(proto.Request{Flags: proto.CmdFlagPayloadLen, Cmd: proto.CmdBlockStatus, Cookie: tp.next, Length: uint64(len(p))}.Append(nil, true))
			tp.in.Write(p)
			want = append(want, "#3 status 2 n=2 4096/1 4096/0 …", "#3 status 1 n=1 8192/3")
		}
		said := replies(t, tp, mapped())
		expect(t, said, want...)
	}
}

func TestContextsThatFail(t *testing.T) {
	set := func(names ...string) *tape {
		return newTape(fixed).option(proto.OptStructuredReply).option(proto.OptSetMetaContext, str("disk"), queries(names...))
	}
	tp := set("base:allocation", "qemu:dirty-bitmap:b").option(proto.OptGo, str("disk"), u16s(0))
	tp.mode = "structured"
	expect(t, replies(t, tp.request(proto.CmdBlockStatus, 0, 0, 512), mapped()), "#1 EIO")
	var many []export.Context
	var names []string
	for i := range 17 {
		names = append(names, fmt.Sprintf("x:%d", i))
		many = append(many, export.Context{Name: names[i]})
	}
	said, err := set(names...).play(t, nbd.Config{Exports: mapped(many...)})
	if err != nil {
		t.Error(err)
	}
	expect(t, said, "8 ack", "10 too-big")
	// What was selected, and is gone when the client attaches, refuses it.
	x := mapped()
	first := x[0].Contexts
	asked := 0
	x[0].Contexts = func() []export.Context {
		if asked++; asked > 1 {
			return nil
		}
		return first()
	}
	said, err = set("qemu:dirty-bitmap:a").option(proto.OptGo, str("disk"), u16s(0)).play(t, nbd.Config{Exports: x})
	if err != nil {
		t.Error(err)
	}
	expect(t, said, "8 ack", "10 context 2 qemu:dirty-bitmap:a", "10 ack", "7 invalid")
}
