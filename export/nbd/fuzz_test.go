// Fuzzing goes on from the corpora in testdata with
//
//	go test -run - -fuzz FuzzTransmission -fuzzminimizetime 10x ./export/nbd
//
// The limit is needed because goroutines make coverage vary from run to run, so
// that minimizing an input may never end.

package nbd_test

import (
	"testing"

	"udm/blk/memdev"
	"udm/export"
	"udm/export/nbd"
	"udm/internal/nbd/proto"
)

// fuzzServer is a server of a small disk, so that random offsets hit it.
func fuzzServer(tb testing.TB) *nbd.Server {
	d := memdev.New(256, memdev.Volatile)
	s, err := nbd.New(nbd.Config{Exports: nbd.Fixed{{Info: nbd.Info{Name: "d"}, Device: export.Check(d), Extents: d.Extents, SparseReads: true}}})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// FuzzHandshake sends a client's bytes, from its flags on, to the server. The
// server must terminate and send only well-formed messages.
func FuzzHandshake(f *testing.F) {
	for _, t := range []*tape{
		newTape(fixed).option(proto.OptList).option(proto.OptAbort),
		newTape(fixed).attach("structured", "d").request(proto.CmdRead, 0, 0, 512),
		newTape(fixed).attach("extended", "").request(proto.CmdBlockStatus, 0, 0, 512),
		newTape(fixed).option(proto.OptInfo, str("d"), u16s(3, 1, 2, 3)).option(proto.OptExportName, []byte("d")),
		newTape(fixed).option(proto.OptStructuredReply).option(proto.OptListMetaContext, str("d"), u32(2), str("base:"), str("x-y:z")),
		newTape(0).option(proto.OptStartTLS).option(7, []byte{0, 0, 0, 9}).option(77, make([]byte, 40)),
	} {
		f.Add(t.in.Bytes())
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		play := newTape(0)
		play.in.Reset()
		play.in.Write(in)
		s := fuzzServer(t)
		s.ServeConn(play) // most end in an error, which is fine
		s.Close()
	})
}

// FuzzTransmission sends bytes to a server in transmission. Each complete request
// must get exactly one final, well-formed reply.
func FuzzTransmission(f *testing.F) {
	for i, mode := range []string{"simple", "structured", "extended"} {
		for _, t := range []*tape{
			(&tape{mode: mode, reads: map[uint64]uint64{}}).request(proto.CmdWrite, 0, 512, 1024, ones(1024)...).request(proto.CmdRead, 0, 0, 65536).request(proto.CmdFlush, 0, 0, 0),
			(&tape{mode: mode, reads: map[uint64]uint64{}}).request(proto.CmdTrim, 1, 0, 4096).request(proto.CmdWriteZeroes, 0x12, 0, 4096).request(proto.CmdCache, 0, 0, 4096).
				request(proto.CmdBlockStatus, 8, 0, 131072).request(9, 0xff, 1, 1).request(proto.CmdDisc, 0, 0, 0),
		} {
			f.Add(uint8(i), t.in.Bytes())
		}
	}
	f.Fuzz(func(t *testing.T, mode uint8, in []byte) {
		play := newTape(fixed).attach([]string{"simple", "structured", "extended"}[mode%3], "d")
		want := expected(play, in)
		play.in.Write(in)
		s := fuzzServer(t)
		s.ServeConn(play)
		s.Close()
		if err := finals(play, want); err != "" {
			t.Error(err)
		}
	})
}

// expected parses in as a correct server must and returns how often each cookie
// must be answered. It stores the lengths of reads in play.reads. Requests with a
// truncated payload get no answer.
func expected(play *tape, in []byte) map[uint64]int {
	ext := play.mode == "extended"
	size := proto.RequestSize
	if ext {
		size = proto.ExtRequestSize
	}
	want := make(map[uint64]int)
	for len(in) >= size {
		r, ok := proto.ParseRequest(in, ext)
		if !ok || r.Cmd == proto.CmdDisc {
			break
		}
		in = in[size:]
		payload := uint64(0)
		if r.Cmd == proto.CmdWrite && !ext || ext && r.Flags&proto.CmdFlagPayloadLen != 0 {
			payload = r.Length
		}
		if payload > uint64(len(in)) {
			break
		}
		in = in[payload:]
		want[r.Cookie]++
		if r.Cmd == proto.CmdRead {
			play.reads[r.Cookie] = r.Length
		}
		if !ext && want[r.Cookie] > 1 {
			return nil // the cookie does not identify the reply
		}
	}
	return want
}

func finals(play *tape, want map[uint64]int) string {
	if want == nil {
		return ""
	}
	said, err := play.decode(play.out.Bytes())
	if err != nil {
		return "the server said nonsense: " + err.Error()
	}
	got := make(map[uint64]int)
	for _, line := range said {
		if line[0] != '#' || hasMore(line) {
			continue
		}
		var cookie uint64
		for _, d := range line[1:] {
			if d == ' ' {
				break
			}
			cookie = cookie*10 + uint64(d-'0')
		}
		got[cookie]++
	}
	for cookie, n := range want {
		if got[cookie] != n {
			return "a request was not answered once: " + itoa(got[cookie]) + " replies to " + itoa(n) + " requests"
		}
	}
	if len(got) > len(want) {
		return "an answer to nothing"
	}
	return ""
}

// hasMore reports whether a line of decode is a chunk that is not the last.
func hasMore(line string) bool {
	const more = " …"
	return len(line) > len(more) && line[len(line)-len(more):] == more
}
