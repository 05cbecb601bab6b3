package nbdclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/checkdev"
	"udm/env"
	"udm/internal/nbd/proto"
	"udm/test/need"
)

func TestParseURI(t *testing.T) {
	for uri, want := range map[string][4]string{
		"nbd://host/disk":                 {"tcp", "host:10809", "disk", "false"},
		"nbds://[::1]:99/a/b":             {"tcp", "[::1]:99", "a/b", "true"},
		"nbd://host":                      {"tcp", "host:10809", "", "false"},
		"nbd+unix:///x%20y?socket=/tmp/s": {"unix", "/tmp/s", "x y", "false"},
		"nbds+unix:///?socket=s":          {"unix", "s", "", "true"},
		"nbd+unix:///disk":                {"", "", "", "false"},
		"http://host/disk":                {"", "", "", "false"},
		"nbd://host:port:port/%zz":        {"", "", "", "false"},
		"/dev/sda":                        {"", "", "", "false"},
	} {
		network, addr, export, secure, err := ParseURI(uri)
		got := [4]string{network, addr, export, map[bool]string{true: "true", false: "false"}[secure]}
		if got != want || (err != nil) != (want[0] == "") {
			t.Errorf("%s: %q, %v", uri, got, err)
		}
	}
	if _, err := DialURI(context.Background(), "nbds://localhost", Options{}); err == nil {
		t.Error("TLS without certificates")
	}
}

// The suite against a server that is not ours.
func TestConformanceOfNbdkit(t *testing.T) {
	need.Tools(t, "nbdkit")
	for name, o := range map[string]Options{"simple": {Simple: true}, "structured": {}} {
		t.Run(name, func(t *testing.T) {
			blktest.TestDevice(t, func(t *testing.T) blk.Device {
				socket := filepath.Join(t.TempDir(), "s")
				nbdkit(t, socket)
				c, err := Dial(context.Background(), "unix", socket, o)
				if err != nil {
					t.Fatal(err)
				}
				return checkdev.New(c, checkdev.Options{Preflush: true})
			})
		})
	}
}

func nbdkit(t *testing.T, socket string) {
	cmd := exec.Command("nbdkit", "--foreground", "--exit-with-parent", "--pidfile", socket+".pid", "-U", socket, "memory", "2M")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
	})
	for {
		if nc, err := net.Dial("unix", socket); err == nil {
			nc.Close()
			return
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("nbdkit does not start: %v", err)
		case <-time.After(10 * time.Millisecond): // it tells nobody that it listens
		}
	}
}

// server says what it was given and swallows what the client says.
type server struct{ said *bytes.Reader }

func (s *server) Read(p []byte) (int, error) {
	if s.said.Len() == 0 {
		return 0, io.EOF
	}
	return s.said.Read(p)
}

func (s *server) Write(p []byte) (int, error) { return len(p), nil }
func (s *server) Close() error                { return nil }

func optReply(o proto.Option, r proto.OptReply, data []byte) []byte {
	p := be.AppendUint64(nil, proto.MagicOptReply)
	p = be.AppendUint32(p, uint32(o))
	p = be.AppendUint32(p, uint32(r))
	p = be.AppendUint32(p, uint32(len(data)))
	return append(p, data...)
}

// hello is what a server with structured replies says up to transmission.
func hello() []byte {
	p := be.AppendUint64(nil, proto.MagicInit)
	p = be.AppendUint64(p, proto.MagicOption)
	p = be.AppendUint16(p, 3)
	p = append(p, optReply(proto.OptStructuredReply, proto.RepAck, nil)...)
	p = append(p, optReply(proto.OptSetMetaContext, proto.RepMetaContext, append([]byte{0, 0, 0, 1}, proto.ContextAllocation...))...)
	p = append(p, optReply(proto.OptSetMetaContext, proto.RepAck, nil)...)
	info := be.AppendUint64(be.AppendUint16(nil, proto.InfoExport), 1<<20)
	p = append(p, optReply(proto.OptGo, proto.RepInfo, be.AppendUint16(info, proto.FlagHasFlags))...)
	return append(p, optReply(proto.OptGo, proto.RepAck, nil)...)
}

func TestHandshakeWithStrangeServers(t *testing.T) {
	good := hello()
	refused := append(good[:18:18], optReply(proto.OptStructuredReply, proto.RepErrUnsup, nil)...)
	refused = append(refused, optReply(proto.OptGo, proto.RepErrUnknown, []byte("no such disk"))...)
	for name, said := range map[string][]byte{
		"nothing":       nil,
		"oldstyle":      append(be.AppendUint64(be.AppendUint64(nil, proto.MagicInit), 0x420281861253), make([]byte, 200)...),
		"not fixed":     append(good[:16:16], 0, 0),
		"cut":           good[:60],
		"wrong option":  append(good[:18:18], optReply(77, proto.RepAck, nil)...),
		"endless reply": append(good[:18:18], optReply(proto.OptStructuredReply, proto.RepAck, make([]byte, 2<<20))...),
		"refused":       refused,
	} {
		c, err := New(&server{said: bytes.NewReader(said)}, Options{Export: "disk"})
		if err == nil {
			c.Close()
			t.Errorf("%s: attached", name)
		}
		var o *OptionError
		if name == "refused" && (!errors.As(err, &o) || o.Text != "no such disk") {
			t.Error(err)
		}
	}
}

func structured(flags uint16, kind proto.Chunk, cookie uint64, payload []byte) []byte {
	p := make([]byte, proto.StructuredSize)
	proto.PutStructured(p, flags, kind, cookie, uint32(len(payload)))
	return append(p, payload...)
}

// answer lets a server say something after it got one read of 1024 bytes, then
// hang up, and returns how the read ended.
func answer(t *testing.T, said []byte) (blk.Status, []byte) {
	a, b := net.Pipe()
	asked := make(chan bool)
	go func() {
		io.CopyN(io.Discard, b, 4+16+(16+4+4+4+15)+(16+4+2+4)) // flags and three options
		io.CopyN(io.Discard, b, proto.RequestSize)
		close(asked)
		io.Copy(io.Discard, b)
	}()
	go func() {
		b.Write(hello())
		<-asked
		b.Write(said)
		b.Close()
	}()
	c, err := New(a, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := bytes.Repeat([]byte{9}, 1024)
	r := &blk.Bio{Op: blk.Read}
	r.SetData(p)
	return blk.Do(env.Real(), c, r), p
}

func TestReplies(t *testing.T) {
	blktest.Leaks(t)
	at := func(off uint64, p []byte) []byte { return append(be.AppendUint64(nil, off), p...) }
	hole := func(off uint64, n uint32) []byte { return be.AppendUint32(be.AppendUint64(nil, off), n) }
	half := bytes.Repeat([]byte{1}, 512)
	simple := make([]byte, proto.SimpleSize)
	proto.PutSimple(simple, proto.ENOSPC, 1)
	for name, c := range map[string]struct {
		said []byte
		want blk.Status
	}{
		"fragments out of order": {bytes.Join([][]byte{structured(0, proto.ChunkData, 1, at(512, half)), structured(0, proto.ChunkHole, 1, hole(0, 512)), structured(1, proto.ChunkNone, 1, nil)}, nil), blk.OK},
		"error":                  {structured(1, proto.ChunkError, 1, []byte{0, 0, 0, 28, 0, 2, 'n', 'o'}), blk.NoSpace},
		"error with offset":      {structured(1, proto.ChunkErrorOffset, 1, append([]byte{0, 0, 0, 5, 0, 0}, make([]byte, 8)...)), blk.IOErr},
		"unknown errno":          {structured(1, proto.ChunkError, 1, []byte{0, 0, 9, 9, 0, 0}), blk.IOErr},
		"simple error":           {simple, blk.NoSpace},
		"hang up":                {nil, blk.Offline},
		"wrong magic":            {make([]byte, 20), blk.Offline},
		"unknown cookie":         {structured(1, proto.ChunkNone, 7, nil), blk.Offline},
		"unknown chunk":          {structured(1, 9, 1, nil), blk.Offline},
		"data before the range":  {structured(1, proto.ChunkData, 1, at(1<<63, half)), blk.Offline},
		"data beyond the range":  {structured(1, proto.ChunkData, 1, at(1024-8, half)), blk.Offline},
		"hole beyond the range":  {structured(1, proto.ChunkHole, 1, hole(512, 1024)), blk.Offline},
		"empty data":             {structured(1, proto.ChunkData, 1, at(0, nil)), blk.Offline},
		"short hole":             {structured(1, proto.ChunkHole, 1, make([]byte, 5)), blk.Offline},
		"short error":            {structured(1, proto.ChunkError, 1, make([]byte, 5)), blk.Offline},
		"half a chunk":           {structured(1, proto.ChunkData, 1, at(0, half))[:300], blk.Offline},
		"huge payload":           {be.AppendUint32(structured(1, proto.ChunkError, 1, nil)[:16], 1<<31), blk.Offline},
	} {
		st, p := answer(t, c.said)
		if st != c.want {
			t.Errorf("%s: %v, want %v", name, st, c.want)
		}
		if st == blk.OK && (!bytes.Equal(p[:512], make([]byte, 512)) || !bytes.Equal(p[512:], half)) {
			t.Errorf("%s: wrong data", name)
		}
	}
}

// A flush that the server has no space for may have lost what it acknowledged.
func TestNoSpaceForAFlush(t *testing.T) {
	for cmd, want := range map[proto.Cmd]blk.Status{proto.CmdFlush: blk.IOErr, proto.CmdWrite: blk.NoSpace} {
		k := &call{req: proto.Request{Cmd: cmd}}
		if k.fail(proto.ENOSPC); k.status != want {
			t.Errorf("command %d: %v, want %v", cmd, k.status, want)
		}
	}
}

// FuzzReplies: whatever a server says, the bio ends and Close returns.
func FuzzReplies(f *testing.F) {
	f.Add(structured(1, proto.ChunkData, 1, make([]byte, 8+1024)))
	f.Add(append(structured(0, proto.ChunkHole, 1, make([]byte, 12)), structured(1, proto.ChunkNone, 1, nil)...))
	f.Add(structured(1, proto.ChunkError, 1, make([]byte, 6)))
	f.Add(structured(1, proto.ChunkBlockStatus, 1, make([]byte, 12)))
	f.Fuzz(func(t *testing.T, said []byte) { answer(t, said) })
}

// A map in bytes becomes one in sectors: what is a hole in part is data, and what
// lies beyond the question is left out.
func TestExtentsOfUnalignedDescriptors(t *testing.T) {
	hole, data := uint32(proto.StateHole|proto.StateZero), uint32(0)
	for name, c := range map[string]struct {
		descriptors []uint32
		want        string
	}{
		"aligned":        {[]uint32{1024, hole, 1024, data}, "[{2 2 false} {4 2 true}]"},
		"border inside":  {[]uint32{1000, hole, 1048, data}, "[{2 1 false} {3 3 true}]"},
		"hole inside":    {[]uint32{100, data, 1100, hole, 848, data}, "[{2 1 true} {3 1 false} {4 2 true}]"},
		"less than one":  {[]uint32{100, hole}, "[{2 1 true}]"},
		"longer":         {[]uint32{1 << 31, hole, 1 << 31, data}, "[{2 4 false}]"},
		"fewer than all": {[]uint32{512, hole}, "[{2 1 false}]"},
	} {
		var p []byte
		for _, v := range c.descriptors {
			p = be.AppendUint32(p, v)
		}
		k := &call{req: proto.Request{Cmd: proto.CmdBlockStatus, Offset: 1024, Length: 2048}}
		if err := k.extents(p, 4); err != nil || fmt.Sprint(k.list) != c.want {
			t.Errorf("%s: %v, %v, want %s", name, k.list, err, c.want)
		}
		if k.extents(p, 4) == nil {
			t.Errorf("%s: a second map is taken", name)
		}
	}
}

func TestBlockSizesAgainstTheProtocol(t *testing.T) {
	for _, s := range []serverInfo{{min: 0, prefer: 4096, max: 4096}, {min: 3, prefer: 4096, max: 4096}, {min: 1 << 17, prefer: 1 << 17, max: 1 << 17}, {min: 512, prefer: 3, max: 4096}, {min: 4096, prefer: 512, max: 4096}, {min: 512, prefer: 512, max: 511}} {
		if s.check() == nil {
			t.Errorf("%+v is taken", s)
		}
	}
	s := serverInfo{size: 10_000, min: 4096, prefer: 4096, max: 10_000}
	if l := s.limits(); s.check() != nil || l.Size != 16 || l.MaxSectors != 16 {
		t.Errorf("%+v", s.limits())
	}
}

// A server that answers a write before it has read all of it does not end the bio
// while its data are still sent, and Abort ends what hangs.
func TestEarlyAnswer(t *testing.T) {
	blktest.Leaks(t)
	a, b := net.Pipe()
	asked := make(chan bool)
	go func() {
		io.CopyN(io.Discard, b, 4+16+(16+4+4+4+15)+(16+4+2+4)+proto.RequestSize+100)
		close(asked)
	}()
	go func() {
		b.Write(hello())
		<-asked
		b.Write(structured(1, proto.ChunkError, 1, []byte{0, 0, 0, 28, 0, 0}))
	}()
	c, err := New(a, Options{})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan blk.Status, 1)
	w := &blk.Bio{Op: blk.Write, End: func(b *blk.Bio) { ended <- b.Status() }}
	w.SetData(make([]byte, 1024))
	c.Submit(w)
	<-asked
	c.wait.Until(func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.pending[1].answered
	})
	if len(ended) != 0 {
		t.Error("the write ended while its data were sent")
	}
	c.Abort()
	if st := <-ended; st != blk.NoSpace {
		t.Errorf("it ended with %v", st)
	}
	c.Close()
	b.Close()
}
