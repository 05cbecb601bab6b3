package rbddiff

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// told is a record and its data.
type told struct {
	Record
	data string
}

var (
	header  = Header{From: "monday", To: "tuesday", Size: 1 << 20}
	seal    = Seal{From: "id of monday", To: "id of tuesday"}
	records = []told{{Record{0, 5, false}, "hello"}, {Record{4096, 4096, true}, ""}, {Record{8192, 3, false}, "abc"}, {Record{1<<20 - 1, 1, false}, "z"}}
)

// write returns the stream without its first skip bytes.
func write(t testing.TB, skip uint64, h Header, list []told, s Seal) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, skip, h)
	for _, r := range list {
		if r.Zero {
			err = errors.Join(err, w.Zero(r.Offset, r.Length))
		} else {
			err = errors.Join(err, w.Data(r.Offset, []byte(r.data)))
		}
	}
	if err = errors.Join(err, w.Close(s)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// rest reads the rest of a stream, and returns the position after each record.
func rest(r *Reader) (list []told, at []Position, err error) {
	for {
		at = append(at, r.Position())
		x, err := r.Next()
		if err != nil {
			return list, at, err
		}
		p, err := io.ReadAll(r)
		if err != nil {
			return list, at, err
		}
		list = append(list, told{x, string(p)})
	}
}

func read(p []byte) (h Header, list []told, s *Seal, err error) {
	r, err := NewReader(bytes.NewReader(p))
	if err != nil {
		return h, nil, nil, err
	}
	list, _, err = rest(r)
	return r.Header(), list, r.Seal(), err
}

func TestRoundTrip(t *testing.T) {
	h, list, s, err := read(write(t, 0, header, records, seal))
	if err != io.EOF || h != header || !slices.Equal(list, records) || s == nil || *s != seal {
		t.Errorf("%+v %+v %+v %v", h, list, s, err)
	}
	h, list, s, err = read(write(t, 0, Header{}, nil, Seal{}))
	if err != io.EOF || h != (Header{}) || list != nil || s == nil || *s != (Seal{}) {
		t.Errorf("%+v %+v %+v %v", h, list, s, err)
	}
}

// A stream has the bytes described in the package comment.
func TestBytes(t *testing.T) {
	got := write(t, 0, Header{"a", "bc", 16}, []told{{Record{1, 2, false}, "xy"}, {Record{8, 8, true}, ""}}, Seal{"", "i"})
	want := "rbd diff v1\nf\x01\x00\x00\x00at\x02\x00\x00\x00bcs\x10\x00\x00\x00\x00\x00\x00\x00" +
		"w\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00xy" +
		"z\x08\x00\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00e" +
		"udm seal v1\n\x00\x00\x00\x00\x01\x00\x00\x00i"
	if s := string(got[:len(got)-32]); s != want {
		t.Errorf("%q, want %q", s, want)
	}
}

// version2 is the same stream in rbd's version 2, with unknown records and without a seal.
func version2() []byte {
	var b bytes.Buffer
	put := func(tag byte, parts ...[]byte) {
		p := bytes.Join(parts, nil)
		b.Write(le.AppendUint64([]byte{tag}, uint64(len(p))))
		b.Write(p)
	}
	u64 := func(v uint64) []byte { return le.AppendUint64(nil, v) }
	b.WriteString(bannerV2)
	put('s', u64(header.Size))
	put('p', []byte{1})
	put('t', appendString(nil, header.To))
	put('f', appendString(nil, header.From))
	for _, r := range records {
		put('?', make([]byte, 10000))
		if r.Zero {
			put('z', u64(r.Offset), u64(r.Length))
		} else {
			put('w', u64(r.Offset), u64(r.Length), []byte(r.data))
		}
	}
	b.WriteByte('e')
	return b.Bytes()
}

func TestVersion2(t *testing.T) {
	h, list, s, err := read(version2())
	if err != io.EOF || h != header || !slices.Equal(list, records) || s != nil {
		t.Errorf("%+v %+v %+v %v", h, list, s, err)
	}
}

// A stream of rbd is reported to have no seal.
func TestWithoutSeal(t *testing.T) {
	p := write(t, 0, header, records, seal)
	p = p[:bytes.Index(p, []byte(sealMark))]
	h, list, s, err := read(p)
	if err != io.EOF || h != header || !slices.Equal(list, records) || s != nil {
		t.Errorf("%+v %+v %+v %v", h, list, s, err)
	}
}

// A stream that is cut anywhere is reported as cut, except where it is a valid stream of rbd.
// Complete records before the cut are returned.
func TestEachCut(t *testing.T) {
	p := write(t, 0, header, records, seal)
	for n := range p {
		_, list, s, err := read(p[:n])
		var e *Error
		if n == bytes.Index(p, []byte(sealMark)) {
			if err != io.EOF || s != nil {
				t.Errorf("cut before the seal: %v", err)
			}
			continue
		}
		if !errors.As(err, &e) || !e.Cut || e.At != uint64(n) || s != nil || !slices.Equal(list, records[:len(list)]) {
			t.Errorf("cut at %d: %+v, %v", n, list, err)
		}
	}
}

// A stream with any bit flipped is not accepted.
func TestEachFlip(t *testing.T) {
	for name, p := range map[string][]byte{"v1": write(t, 0, header, records, seal)} {
		for i := range p {
			for bit := range 8 {
				q := slices.Clone(p)
				q[i] ^= 1 << bit
				if _, _, s, err := read(q); err == io.EOF && s != nil || err == nil {
					t.Errorf("%s, bit %d of byte %d: %v", name, bit, i, err)
				}
			}
		}
	}
}

// A stream can be resumed after any record.
func TestParts(t *testing.T) {
	for _, p := range [][]byte{write(t, 0, header, records, seal), version2()} {
		r, err := NewReader(bytes.NewReader(p))
		if err != nil {
			t.Fatal(err)
		}
		_, at, _ := rest(r)
		for i, pos := range at {
			r, err := Resume(bytes.NewReader(p[pos.Offset:]), pos)
			if err != nil {
				t.Fatal(err)
			}
			list, _, err := rest(r)
			if err != io.EOF || !slices.Equal(list, records[i:]) || r.Header() != header {
				t.Errorf("from %d: %+v %v", pos.Offset, list, err)
			}
			if !strings.HasPrefix(string(p), bannerV1) {
				continue
			}
			if *r.Seal() != seal {
				t.Errorf("from %d: %+v", pos.Offset, r.Seal())
			}
			// A stream that starts from the beginning, or at another offset, is refused.
			for n := range p {
				if r, err := Resume(bytes.NewReader(p[n:]), pos); err == nil && uint64(n) != pos.Offset {
					if _, _, err := rest(r); err == io.EOF && r.Seal() != nil {
						t.Errorf("goes on at %d with what is at %d", pos.Offset, n)
					}
				}
			}
		}
	}
	p := write(t, 0, header, records, seal)
	for n := range len(p) + 1 {
		if got := write(t, uint64(n), header, records, seal); !bytes.Equal(got, p[n:]) {
			t.Fatalf("the stream from %d on is %d bytes", n, len(got))
		}
	}
	if _, err := Resume(nil, Position{Sum: []byte("?")}); err == nil {
		t.Error("a sum that is none is taken")
	}
}

func TestWrongStreams(t *testing.T) {
	good := string(write(t, 0, header, records, seal))
	end := strings.Index(good, sealMark)
	for name, p := range map[string]string{
		"at byte 0: it does not begin with":  "SnAp" + good,
		"unknown record '?'":                 bannerV1 + "?",
		"it has no size":                     bannerV1 + "e",
		"a name has 4097 bytes":              bannerV1 + "f\x01\x10\x00\x00",
		"record 't' comes after data":        good[:end-1] + "t" + good[end:],
		"exceeds the image of 1048576 bytes": good[:end-1] + "z\x01\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff",
		"something follows its end":          good + "x",
		"its checksum does not match":        good[:len(good)-1] + "\x00",
		"a record has a length of 9":         bannerV2 + "s\x09\x00\x00\x00\x00\x00\x00\x00",
		"does not match its record":          bannerV2 + "f\x06\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00a",
	} {
		_, _, _, err := read([]byte(p))
		if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q, want %q", err, name)
		}
	}
	r, err := NewReader(io.MultiReader(strings.NewReader(good[:40]), iotest.ErrReader(errors.New("unplugged"))))
	if err == nil {
		_, _, err = rest(r)
	}
	if err == nil || err.Error() != "unplugged" {
		t.Error(err)
	}
}

func TestWriterRefuses(t *testing.T) {
	for name, f := range map[string]func(w *Writer) error{
		"order":  func(w *Writer) error { return errors.Join(w.Data(8, []byte("x")), w.Zero(8, 1)) },
		"end":    func(w *Writer) error { return w.Data(header.Size, []byte("x")) },
		"length": func(w *Writer) error { return w.Zero(1, 1<<64-1) },
		"id":     func(w *Writer) error { return w.Close(Seal{To: strings.Repeat("x", 257)}) },
	} {
		w, err := NewWriter(io.Discard, 0, header)
		if err != nil || f(w) == nil || w.Close(seal) == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := NewWriter(io.Discard, 0, Header{To: strings.Repeat("x", 4097)}); err == nil {
		t.Error("a name that is too long is taken")
	}
	if w, _ := NewWriter(failing{}, 0, header); w.Close(seal) == nil {
		t.Error("an error of the pipe is lost")
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// FuzzReader reads arbitrary input. Reading ends, the records are inside the image, and a
// sealed stream with ascending records survives being written and read again.
func FuzzReader(f *testing.F) {
	f.Add(write(f, 0, header, records, seal))
	f.Add(version2())
	f.Add([]byte(bannerV1 + "e"))
	f.Fuzz(func(t *testing.T, p []byte) {
		r, err := NewReader(iotest.OneByteReader(bytes.NewReader(p)))
		if err != nil {
			return
		}
		list, at, err := rest(r)
		var e *Error
		if err != io.EOF && !errors.As(err, &e) {
			t.Fatalf("%v", err)
		}
		for i, x := range list {
			if x.Offset+x.Length > r.Header().Size || !x.Zero && uint64(len(x.data)) != x.Length || at[i].Offset >= at[i+1].Offset {
				t.Fatalf("%+v of %+v", x, r.Header())
			}
		}
		end := uint64(0)
		list = slices.DeleteFunc(list, func(x told) bool { return x.Length == 0 })
		for _, x := range list {
			if x.Offset < end {
				return
			}
			end = x.Offset + x.Length
		}
		if err != io.EOF {
			return
		}
		h, again, _, err := read(write(t, 0, r.Header(), list, Seal{}))
		if err != io.EOF || h != r.Header() || !reflect.DeepEqual(again, list) {
			t.Fatal(fmt.Sprint(again, list, err))
		}
	})
}
