//go:build linux

package vhost

import (
	"log/slog"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"udm/export"
)

// Messages that must be refused, and leave everything as it was.
func TestHostileMessages(t *testing.T) {
	_, path := serve(t, newDisk(), nil)
	f := guest(t, path, true, 0)
	files := openFiles(t)
	pipe := make([]int, 2)
	if err := unix.Pipe2(pipe, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	ro := must[*os.File](t)(os.Open("/proc/self/exe"))
	region := func(change func(*regionDesc)) []regionDesc {
		r := regionDesc{1 << 40, 4096, 1 << 41, 0}
		change(&r)
		return []regionDesc{r}
	}
	same := func(*regionDesc) {}
	for name, c := range map[string]struct {
		m     message
		files []int
	}{
		"feature":         {message{request: setFeatures, value: 1 << 63}, nil},
		"ring index":      {message{request: setVringNum, index: 2, num: 8}, nil},
		"huge ring index": {message{request: setVringEnable, index: 1<<32 - 1, num: 1}, nil},
		"kick index":      {message{request: setVringKick, value: 255}, []int{f.kick}},
		"size 0":          {message{request: setVringNum, index: 1}, nil},
		"size 3":          {message{request: setVringNum, index: 1, num: 3}, nil},
		"size 65536":      {message{request: setVringNum, index: 1, num: 65536}, nil},
		"size, running":   {message{request: setVringNum, num: 64}, nil},
		"base, running":   {message{request: setVringBase, num: 5}, nil},
		"addr, running":   {message{request: setVringAddr, addr: ringAddr{desc: userAt}}, nil},
		"enable with 2":   {message{request: setVringEnable, num: 2}, nil},
		"no kick":         {message{request: setVringKick, value: 1}, nil},
		"kick is a pipe":  {message{request: setVringKick, value: 1}, []int{pipe[0]}},
		"call is a file":  {message{request: setVringCall, value: 1}, []int{f.fd}},
		"two kicks":       {message{request: setVringKick, value: 1}, []int{f.kick, f.kick}},
		"file for num":    {message{request: setVringNum, index: 1, num: 8}, []int{f.kick}},
		"config write":    {message{request: setConfig, config: configPart{offset: 33, data: []byte{1}}}, nil},
		"long write":      {message{request: setConfig, config: configPart{offset: 32, data: []byte{1, 0}}}, nil},
		"capacity":        {message{request: setConfig, config: configPart{data: make([]byte, 8)}}, nil},
		"status":          {message{request: setStatus, value: 256}, nil},
		"packed, running": {message{request: setFeatures, value: featPacked | featVersion1}, nil},
		"too few files":   {message{request: setMemTable, regions: region(same)}, nil},
		"too many files":  {message{request: setMemTable, regions: region(same)}, []int{f.fd, f.fd}},
		"memory: pipe":    {message{request: addMemReg, regions: region(same)}, []int{pipe[0]}},
		"memory: eventfd": {message{request: addMemReg, regions: region(same)}, []int{f.kick}},
		"memory: r/o":     {message{request: addMemReg, regions: region(same)}, []int{int(ro.Fd())}},
		"region: empty":   {message{request: addMemReg, regions: region(func(r *regionDesc) { r.size = 0 })}, []int{f.fd}},
		"region: wraps":   {message{request: addMemReg, regions: region(func(r *regionDesc) { r.offset = 1<<64 - 4096 })}, []int{f.fd}},
		"region: huge":    {message{request: addMemReg, regions: region(func(r *regionDesc) { r.size = 1 << 63 })}, []int{f.fd}},
		"region: beyond":  {message{request: addMemReg, regions: region(func(r *regionDesc) { r.offset = memLen })}, []int{f.fd}},
		"guest wraps":     {message{request: addMemReg, regions: region(func(r *regionDesc) { r.guest = 1<<64 - 4095 })}, []int{f.fd}},
		"overlap":         {message{request: addMemReg, regions: region(func(r *regionDesc) { r.guest = guestAt + 4096 })}, []int{f.fd}},
		"user overlap":    {message{request: addMemReg, regions: region(func(r *regionDesc) { r.user = userAt + 4096 })}, []int{f.fd}},
		"ring is lost":    {message{request: setMemTable, regions: region(same)}, []int{f.fd}},
		"no region":       {message{request: remMemReg, regions: region(same)}, nil},
	} {
		if f.acked(&c.m, c.files...) {
			t.Errorf("%s: done", name)
		}
	}
	unix.Close(pipe[0])
	unix.Close(pipe[1])
	ro.Close()
	everyRequest(t, f)
	if n := openFiles(t); n != files {
		t.Errorf("%d files are open, %d were", n, files)
	}
}

// Bytes after which the connection ends, and the next one works.
func TestHostileBytes(t *testing.T) {
	_, path := serve(t, newDisk(), nil)
	word := func(v ...uint32) (b []byte) {
		for _, x := range v {
			b = order.AppendUint32(b, x)
		}
		return b
	}
	files := 0
	for name, b := range map[string][]byte{
		"version":         word(1, 2, 0),
		"reply":           word(1, 5, 0),
		"long":            word(5, 1, 1<<20),
		"huge":            word(5, 1, 1<<32-1),
		"unknown":         word(99, 1, 0),
		"network":         word(20, 1, 8, 0, 0),
		"short word":      word(2, 1, 4, 0),
		"long word":       word(2, 1, 12, 0, 0, 0),
		"short table":     word(5, 1, 4, 1),
		"regions":         word(5, 1, 8, 9, 0),
		"all regions":     word(5, 1, 8, 1<<32-1, 0),
		"config of none":  word(24, 1, 12, 0, 0, 0),
		"config too long": word(24, 1, 16, 0, 8, 0, 0),
		"config far":      word(24, 1, 16, 1<<32-4, 4, 0, 0),
		"base of ring 9":  word(11, 1, 8, 9, 0),
	} {
		f := connect(t, path, true)
		if n := openFiles(t); files == 0 {
			files = n
		} else if n != files {
			t.Errorf("before %s: %d files are open, %d were", name, n, files)
		}
		if _, _, err := f.c.WriteMsgUnix(b, unix.UnixRights(f.fd, f.fd), nil); err != nil {
			t.Fatal(err)
		}
		if m, err := f.receive(); err == nil {
			t.Errorf("%s: %v is the answer", name, m.request)
		}
		f.close()
	}
}

// A ring that makes no sense ends the connection.
func TestHostileRing(t *testing.T) {
	_, path := serve(t, newDisk(), nil)
	f := guest(t, path, true, 0)
	copy(f.mem[availOff+2:], "\xff\x7f")
	unix.Write(f.kick, one[:])
	f.hungUp()
	f.close()
	everyRequest(t, guest(t, path, true, 0))
}

// Any bytes, with or without files, answer or end; nothing is left behind.
func FuzzSession(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x02\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte("\x10\x00\x08\xff\xff\x00\x00\x00\x00\x00\x00\x05\x02\x28\x01\x00\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte("\x0c\x01\x08\x00\x00\x00\x00\x00\x00\x00\x00\x08\x00\x08\x00\x00\x00\x00\x08\x00\x00\x00\x12\x00\x08\x00\x00\x00\x00\x01\x00\x00\x00"))
	x := export.Export{Device: export.Check(newDisk())}
	f.Fuzz(func(t *testing.T, b []byte) {
		files := openFiles(t)
		s := newSession(&x, &Config{Queues: 2, Log: slog.New(slog.DiscardHandler)}, func(error) {})
		for n := 0; len(b) >= 3 && n < 100; n++ {
			h := header{request(b[0]), version | uint32(b[1]&needReply), uint32(b[2])}
			var got fds
			switch b[1] & 3 {
			case 1:
				got = fds{must[int](t)(unix.Eventfd(0, unix.EFD_CLOEXEC))}
			case 2:
				fd := must[int](t)(unix.MemfdCreate("fuzz", unix.MFD_CLOEXEC))
				_ = unix.Ftruncate(fd, 1<<16)
				got = fds{fd}
			}
			payload := b[3:min(len(b), 3+int(h.size))]
			b = b[3+len(payload):]
			answer, err := s.receive(h, payload, got)
			if err != nil && answer.bytes != nil {
				t.Fatal("an answer and an error")
			}
			if b := answer.bytes; b != nil && (len(b) < headerLen || int(order.Uint32(b[8:])) != len(b)-headerLen) {
				t.Fatalf("answer % x", b)
			}
			if answer.file != nil {
				answer.file.Close()
			}
		}
		s.close()
		if n := openFiles(t); n != files {
			t.Fatalf("%d files are open, %d were", n, files)
		}
	})
}
