package nbd_test

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/env"
	"udm/export"
	"udm/export/nbd"
	"udm/internal/nbd/proto"
)

// replies plays the tape and returns what came after the handshake. Requests
// that run on goroutines of their own are answered in any order: the lines are
// sorted by cookie.
func replies(t *testing.T, tp *tape, exports nbd.Exports) []string {
	t.Helper()
	said, err := tp.play(t, nbd.Config{Exports: exports})
	if err != nil {
		t.Error(err)
	}
	said = slices.DeleteFunc(said, func(s string) bool { return s[0] != '#' })
	slices.SortStableFunc(said, func(a, b string) int {
		na, _, _ := strings.Cut(a, " ")
		nb, _, _ := strings.Cut(b, " ")
		return len(na) - len(nb) + 100*strings.Compare(na, nb)*min(1, 1-abs(len(na)-len(nb)))
	})
	return said
}

func abs(n int) int { return max(n, -n) }

func modes(t *testing.T, f func(t *testing.T, mode string)) {
	for _, m := range []string{"simple", "structured", "extended"} {
		t.Run(m, func(t *testing.T) { f(t, m) })
	}
}

func ones(n int) []byte { return bytes.Repeat([]byte{1}, n) }

func TestReadWriteInEveryMode(t *testing.T) {
	modes(t, func(t *testing.T, mode string) {
		tp := newTape(fixed).attach(mode, "disk").
			request(proto.CmdWrite, 0, 4096, 8192, ones(8192)...).
			request(proto.CmdRead, 0, 4096, 8192).
			request(proto.CmdRead, 0, 8192, 1024).
			request(proto.CmdFlush, 0, 0, 0).
			request(proto.CmdWrite, proto.CmdFlagFUA, 512, 512, ones(512)...).
			request(proto.CmdRead, proto.CmdFlagFUA, 0, 1024)
		at := map[string]string{"simple": "", "structured": "@", "extended": "@"}[mode]
		data := func(off, s string) string {
			if at == "" {
				return "data " + s
			}
			return "data@" + off + " " + s
		}
		expect(t, replies(t, tp, disk()), "#1 ok", "#2 "+data("4096", "1*8192"), "#3 "+data("8192", "1*1024"),
			"#4 ok", "#5 ok", "#6 "+data("0", "mixed*1024"))
	})
}

func TestWrongRequestsGetTheirErrorAndNothingIsLost(t *testing.T) {
	const huge = proto.MaxPayload + 512
	modes(t, func(t *testing.T, mode string) {
		readTooLong := "EINVAL"
		if mode != "simple" {
			readTooLong = "EOVERFLOW"
		}
		type req struct {
			cmd         proto.Cmd
			flags       uint16
			off, length uint64
			payload     int
			want        string
		}
		cases := []req{
			{proto.CmdRead, 0, diskSize, 512, 0, "EINVAL"},
			{proto.CmdRead, 0, diskSize - 512, 1024, 0, "EINVAL"},
			{proto.CmdRead, 0, 1<<64 - 512, 1024, 0, "EINVAL"},
			{proto.CmdRead, 0, 0, 0, 0, "EINVAL"},
			{proto.CmdRead, 0, 0, huge, 0, readTooLong},
			{proto.CmdRead, proto.CmdFlagNoHole, 0, 512, 0, "EINVAL"},
			{proto.CmdRead, 1 << 9, 0, 512, 0, "EINVAL"},
			{proto.CmdWrite, 0, diskSize, 512, 512, "ENOSPC"},
			{proto.CmdWrite, 0, 1 << 40, 512, 512, "ENOSPC"},
			{proto.CmdWrite, 0, 0, 0, 0, "EINVAL"},
			{proto.CmdWrite, 0, 0, huge, huge, "EINVAL"},
			{proto.CmdWrite, proto.CmdFlagDF, 0, 512, 512, "EINVAL"},
			{proto.CmdFlush, 0, 512, 0, 0, "EINVAL"},
			{proto.CmdFlush, 0, 0, 512, 0, "EINVAL"},
			{proto.CmdFlush, proto.CmdFlagReqOne, 0, 0, 0, "EINVAL"},
			{proto.CmdTrim, 0, diskSize, 512, 0, "EINVAL"},
			{proto.CmdTrim, proto.CmdFlagFastZero, 0, 512, 0, "EINVAL"},
			{proto.CmdWriteZeroes, 0, diskSize, 512, 0, "ENOSPC"},
			{proto.CmdWriteZeroes, proto.CmdFlagDF, 0, 512, 0, "EINVAL"},
			{proto.CmdCache, 0, diskSize, 512, 0, "EINVAL"},
			{proto.CmdCache, proto.CmdFlagNoHole, 0, 512, 0, "EINVAL"},
			{proto.CmdBlockStatus, 0, diskSize, 512, 0, "EINVAL"},
			{proto.CmdBlockStatus, 0, 1, 512, 0, "EINVAL"},
			{proto.CmdRead, 0, diskSize - 1, 2, 0, "EINVAL"},
			{proto.CmdWrite, 0, diskSize - 1, 2, 2, "ENOSPC"},
			{proto.CmdBlockStatus, proto.CmdFlagFastZero, 0, 512, 0, "EINVAL"},
			{8, 0, 0, 0, 0, "EINVAL"},
			{77, 0, 0, 512, 0, "EINVAL"},
			{0xffff, 0xffff &^ proto.CmdFlagPayloadLen, 1 << 63, 512, 0, "EINVAL"},
		}
		tp := newTape(fixed).attach(mode, "disk")
		var want []string
		for i, c := range cases {
			tp.request(c.cmd, c.flags, c.off, c.length, make([]byte, c.payload)...)
			want = append(want, "#"+itoa(i+1)+" "+c.want)
		}
		tp.request(proto.CmdFlush, 0, 0, 0)
		want = append(want, "#"+itoa(len(cases)+1)+" ok")
		expect(t, replies(t, tp, disk()), want...)
	})
}

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + itoa(n%10)
}

func TestExtendedPayloadRules(t *testing.T) {
	tp := newTape(fixed).attach("extended", "disk")
	raw := func(cmd proto.Cmd, flags uint16, off, length uint64, payload []byte) {
		tp.next++
		tp.in.Write(proto.Request{Flags: flags, Cmd: cmd, Cookie: tp.next, Offset: off, Length: length}.Append(nil, true))
		tp.in.Write(payload)
	}
	ids := func(length uint64, ids ...uint32) []byte {
		p := be.AppendUint64(nil, length)
		for _, id := range ids {
			p = be.AppendUint32(p, id)
		}
		return p
	}
	const pl = proto.CmdFlagPayloadLen
	raw(proto.CmdWrite, 0, 0, 512, nil)                         // the flag is missing
	raw(proto.CmdRead, pl, 0, 512, ones(512))                   // reads have no payload
	raw(proto.CmdFlush, pl, 0, 512, ones(512))                  // nor have flushes
	raw(proto.CmdRead, 0, 0, 1<<40, nil)                        // too long for a read
	raw(proto.CmdWriteZeroes, 0, 0, 1<<33, nil)                 // beyond the end
	raw(proto.CmdBlockStatus, pl, 0, 12, ids(1024, 1))          // payload form
	raw(proto.CmdBlockStatus, pl, 0, 8, ids(1024))              // no context wanted
	raw(proto.CmdBlockStatus, pl, 0, 12, ids(1024, 7))          // unknown context
	raw(proto.CmdBlockStatus, pl, 0, 16, ids(1024, 1, 1))       // twice
	raw(proto.CmdBlockStatus, pl, 0, 12, ids(diskSize+512, 1))  // beyond the end
	raw(proto.CmdBlockStatus, pl, 0, 5, ones(5))                // too short
	raw(proto.CmdBlockStatus, pl, 1<<20-1024, 12, ids(1024, 1)) // the end
	raw(proto.CmdTrim, 0, 0, diskSize, nil)                     // all of it
	expect(t, replies(t, tp, disk()), "#1 EINVAL", "#2 EINVAL", "#3 EINVAL", "#4 EOVERFLOW", "#5 ENOSPC",
		"#6 status 1 n=1 1024/3", "#7 ok", "#8 EINVAL", "#9 EINVAL", "#10 EINVAL", "#11 EINVAL", "#12 status 1 n=1 1024/3", "#13 ok")
}

func TestHolesAndBlockStatus(t *testing.T) {
	exports := disk()
	if err := blk.WriteSectors(env.Real(), exports[0].Device, ones(64<<10), 128, 0); err != nil {
		t.Fatal(err)
	}
	requests := func(mode string) *tape {
		return newTape(fixed).attach(mode, "disk").
			request(proto.CmdRead, 0, 0, 256<<10).
			request(proto.CmdBlockStatus, 0, 0, diskSize).
			request(proto.CmdBlockStatus, proto.CmdFlagReqOne, 0, diskSize).
			request(proto.CmdBlockStatus, 0, 65536+512, 1024).
			request(proto.CmdRead, proto.CmdFlagDF, 0, 256<<10).
			request(proto.CmdRead, 0, 64<<10, 64<<10).
			request(proto.CmdCache, 0, 0, diskSize)
	}
	expect(t, replies(t, requests("structured"), exports),
		"#1 hole@0+65536 …", "#1 data@65536 1*65536 …", "#1 hole@131072+131072 …", "#1 ok",
		"#2 status 1 65536/3 65536/0 917504/3", "#3 status 1 65536/3", "#4 status 1 1024/0",
		"#5 data@0 mixed*262144", "#6 data@65536 1*65536", "#7 ok")
	expect(t, replies(t, requests("extended"), exports),
		"#1 hole@0+65536 …", "#1 data@65536 1*65536 …", "#1 hole@131072+131072 …", "#1 ok",
		"#2 status 1 n=3 65536/3 65536/0 917504/3", "#3 status 1 n=1 65536/3", "#4 status 1 n=1 1024/0",
		"#5 data@0 mixed*262144", "#6 data@65536 1*65536", "#7 ok")
	exports[0].Extents = nil
	expect(t, replies(t, newTape(fixed).attach("structured", "").request(proto.CmdBlockStatus, 0, 0, diskSize), exports),
		"#1 status 1 1048576/0")
}

// A map may stop short of what it was asked for: the rest is read.
func TestMapThatStopsShort(t *testing.T) {
	exports := disk()
	exports[0].Extents = func(sector, sectors uint64) ([]blk.Extent, error) {
		return []blk.Extent{{Sector: sector, Sectors: 8}}, nil
	}
	tp := newTape(fixed).attach("structured", "disk").request(proto.CmdRead, 0, 0, 64<<10).request(proto.CmdBlockStatus, 0, 0, 64<<10)
	expect(t, replies(t, tp, exports), "#1 hole@0+4096 …", "#1 data@4096 0*61440 …", "#1 ok", "#2 status 1 4096/3")
	for name, f := range map[string]blk.ExtentsFunc{
		"broken": func(uint64, uint64) ([]blk.Extent, error) { return nil, blk.IOErr },
		"empty":  func(uint64, uint64) ([]blk.Extent, error) { return nil, nil },
	} {
		exports[0].Extents = f
		tp := newTape(fixed).attach("structured", "disk").request(proto.CmdRead, 0, 0, 64<<10).request(proto.CmdBlockStatus, 0, 0, 64<<10)
		t.Log(name)
		expect(t, replies(t, tp, exports), "#1 EIO", "#2 EIO")
	}
}

func TestTrimIsDurableWhenAsked(t *testing.T) {
	g := blktest.NewGate(env.Real(), memdev.New(diskSize/blk.SectorSize, memdev.Volatile))
	g.Open()
	exports := nbd.Fixed{{Device: export.Check(g)}}
	tp := newTape(fixed).attach("simple", "").request(proto.CmdTrim, 0, 0, 512)
	expect(t, replies(t, tp, exports), "#1 ok")
	tp = newTape(fixed).attach("simple", "").request(proto.CmdTrim, proto.CmdFlagFUA, 512, 512)
	expect(t, replies(t, tp, exports), "#1 ok")
	expect(t, strings.Split(strings.TrimSpace(g.Trace()), "\n"), "discard 0+1", "discard 1+1", "flush 0+0")
}

// A SET_META_CONTEXT that fails takes back the one before.
func TestFailedContextTakesBackTheOneBefore(t *testing.T) {
	tp := newTape(fixed).option(proto.OptStructuredReply).
		option(proto.OptSetMetaContext, str("disk"), u32(1), str(proto.ContextAllocation)).
		option(proto.OptSetMetaContext, str("disk"), u32(1), str("nonsense")).
		option(proto.OptGo, str("disk"), u16s(0)).request(proto.CmdBlockStatus, 0, 0, 512)
	tp.mode = "structured"
	expect(t, replies(t, tp, disk()), "#1 EINVAL")
}

func TestBlockStatusNeedsItsContext(t *testing.T) {
	two := append(disk(), disk()...)
	two[1].Name = "other"
	tp := newTape(fixed).option(proto.OptStructuredReply).option(proto.OptSetMetaContext, str("other"), u32(1), str(proto.ContextAllocation))
	tp.option(proto.OptGo, str("disk"), u16s(0)).request(proto.CmdBlockStatus, 0, 0, 512)
	tp.mode = "structured"
	expect(t, replies(t, tp, two), "#1 EINVAL")
}

func TestReadOnlyExport(t *testing.T) {
	exports := disk()
	exports[0].ReadOnly = true
	modes(t, func(t *testing.T, mode string) {
		tp := newTape(fixed).attach(mode, "disk").
			request(proto.CmdWrite, 0, 0, 512, ones(512)...).
			request(proto.CmdTrim, 0, 0, 512).
			request(proto.CmdWriteZeroes, 0, 0, 512).
			request(proto.CmdRead, proto.CmdFlagFUA, 0, 512).
			request(proto.CmdFlush, 0, 0, 0)
		expect(t, replies(t, tp, exports), "#1 EPERM", "#2 EPERM", "#3 EPERM", "#4 EINVAL", "#5 ok")
	})
}

func TestZeroes(t *testing.T) {
	poor := memdev.Tune(func(l *blk.Limits) { l.MaxWriteZeroes, l.MaxDiscard = 0, 0 })
	for _, c := range []struct {
		name string
		opts []memdev.Option
		want []string
	}{
		{"native", nil, []string{"#1 ok", "#2 ok", "#3 data 0*1024", "#4 ok", "#5 data 0*512", "#6 ok"}},
		{"emulated", []memdev.Option{poor}, []string{"#1 ok", "#2 ENOTSUP", "#3 data 1*1024", "#4 ok", "#5 data 0*512", "#6 EINVAL"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tp := newTape(fixed).attach("simple", "disk").
				request(proto.CmdWrite, 0, 0, 1024, ones(1024)...).
				request(proto.CmdWriteZeroes, proto.CmdFlagFastZero, 0, 1024).
				request(proto.CmdRead, 0, 0, 1024).
				request(proto.CmdWriteZeroes, proto.CmdFlagNoHole|proto.CmdFlagFUA, 0, 512)
			// Emulation may take time: the answer is read first.
			said := replies(t, tp, disk(c.opts...))
			expect(t, said, c.want[:4]...)
		})
	}
}

// fickle refuses what its limits offer.
type fickle struct {
	blk.Device
	st blk.Status
}

func (f fickle) Submit(b *blk.Bio) {
	if b.Op == blk.WriteZeroes || b.Op == blk.Discard || f.st == blk.IOErr {
		b.Complete(f.st)
		return
	}
	f.Device.Submit(b)
}

func TestDeviceThatRefusesAfterAll(t *testing.T) {
	exports := disk()
	mem := exports[0].Device
	if err := blk.WriteSectors(env.Real(), mem, ones(diskSize), 0, 0); err != nil {
		t.Fatal(err)
	}
	exports[0].Device, exports[0].Extents = export.Check(fickle{mem, blk.NotSupported}), nil
	tp := newTape(fixed).attach("structured", "disk").
		request(proto.CmdTrim, 0, 0, 512).
		request(proto.CmdTrim, proto.CmdFlagFUA, 0, 512).
		request(proto.CmdWriteZeroes, proto.CmdFlagFastZero, 0, 512).
		request(proto.CmdWriteZeroes, 0, 4096, 600<<10)
	expect(t, replies(t, tp, exports), "#1 ok", "#2 ok", "#3 ENOTSUP", "#4 ok")
	p := make([]byte, diskSize)
	if err := blk.ReadSectors(env.Real(), mem, p, 0); err != nil {
		t.Fatal(err)
	}
	want := ones(diskSize)
	clear(want[4096:][:600<<10])
	if !bytes.Equal(p, want) {
		t.Error("zeroes are not where they should be")
	}
}

func TestEveryStatusHasItsErrno(t *testing.T) {
	for st, want := range map[blk.Status]string{blk.IOErr: "EIO", blk.NoSpace: "ENOSPC", blk.Invalid: "EINVAL",
		blk.ReadOnly: "EPERM", blk.Timeout: "EIO", blk.Offline: "EIO", blk.WouldBlock: "EIO", blk.Target: "EIO"} {
		modes(t, func(t *testing.T, mode string) {
			exports := disk()
			exports[0].Device = export.Check(failing{exports[0].Device, st})
			tp := newTape(fixed).attach(mode, "disk").request(proto.CmdRead, 0, 0, 4096).
				request(proto.CmdWrite, 0, 0, 512, ones(512)...).request(proto.CmdFlush, 0, 0, 0)
			expect(t, replies(t, tp, exports), "#1 "+want, "#2 "+want, "#3 "+want)
		})
	}
}

type failing struct {
	blk.Device
	st blk.Status
}

func (f failing) Submit(b *blk.Bio) { b.Complete(f.st) }

func (f failing) Limits() blk.Limits {
	l := f.Device.Limits()
	l.VolatileCache = true // for flushes to get here
	return l
}

func TestStreamThatBreaksIsCut(t *testing.T) {
	for name, f := range map[string]func(*tape){
		"half a header":             func(t *tape) { t.in.Write(make([]byte, 20)) },
		"wrong magic":               func(t *tape) { t.in.Write(make([]byte, 40)) },
		"half a payload":            func(t *tape) { t.request(proto.CmdWrite, 0, 0, 4096, ones(100)...) },
		"half of a large payload":   func(t *tape) { t.request(proto.CmdWrite, 0, 0, diskSize, ones(300<<10)...) },
		"half of a huge payload":    func(t *tape) { t.request(proto.CmdWrite, 0, 0, 1<<31, ones(100)...) },
		"half of a refused payload": func(t *tape) { t.request(proto.CmdWrite, 0, 1<<40, 4096, ones(100)...) },
	} {
		modes(t, func(t *testing.T, mode string) {
			tp := newTape(fixed).attach(mode, "disk").request(proto.CmdFlush, 0, 0, 0)
			f(tp)
			said, err := tp.play(t, nbd.Config{Exports: disk()})
			if err == nil || err == io.EOF {
				t.Errorf("%s: the connection ended with %v after %q", name, err, said)
			}
			if n := len(said); n == 0 || said[n-1] != "#1 ok" {
				t.Errorf("%s: the request before was not answered: %q", name, said)
			}
		})
	}
}

func TestNothingAfterDisconnect(t *testing.T) {
	tp := newTape(fixed).attach("simple", "disk").request(proto.CmdDisc, 0, 0, 0).request(proto.CmdFlush, 0, 0, 0)
	expect(t, replies(t, tp, disk()))
}

// Many requests in one go cross all borders of slabs and batches.
func TestLongPipelines(t *testing.T) {
	modes(t, func(t *testing.T, mode string) {
		exports := disk()
		exports[0].Extents = nil
		tp := newTape(fixed).attach(mode, "disk")
		var want []string
		for i := range 300 {
			n := 512 << (i % 11)
			at := uint64(i%3) * 512
			tp.request(proto.CmdWrite, 0, at, uint64(n), bytes.Repeat([]byte{byte(i)}, n)...)
			tp.request(proto.CmdRead, 0, at, uint64(n))
			data := "data@" + itoa(int(at))
			if mode == "simple" {
				data = "data"
			}
			want = append(want, "#"+itoa(2*i+1)+" ok", "#"+itoa(2*i+2)+" "+data+" "+itoa(i%256)+"*"+itoa(n))
		}
		expect(t, replies(t, tp, exports), want...)
	})
}

// Replies that are cut from no slab are not taken for neighbours.
func TestRepliesWithoutASlab(t *testing.T) {
	tp := newTape(fixed).attach("extended", "disk")
	want := []string{}
	for i := range 40 {
		tp.request(proto.CmdBlockStatus, 0, 0, 512)
		want = append(want, "#"+itoa(i+1)+" status 1 n=1 512/3")
	}
	expect(t, replies(t, tp, disk()), want...)
}
