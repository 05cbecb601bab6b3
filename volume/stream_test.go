package volume

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"udm/blk"
	"udm/volume/rbddiff"
)

// sent returns the stream of an object, since a checkpoint or complete.
func (r *rig) sent(name, from string) []byte {
	r.t.Helper()
	var b bytes.Buffer
	r.ok(r.m.Send(ctx, SendSpec{Name: name, From: from}, &b))
	return b.Bytes()
}

func (r *rig) receive(s ReceiveSpec, stream []byte) error {
	_, err := r.m.Receive(ctx, s, bytes.NewReader(stream))
	return err
}

// equal checks that two objects have the same contents.
func (r *rig) equal(a, b string) {
	r.t.Helper()
	if !bytes.Equal(r.holds(a), r.holds(b)) {
		r.t.Fatalf("%s does not hold what %s does", a, b)
	}
}

// Generations of a volume are received in another pool, each as the changes since the previous
// one, and sent from there to a third pool. The streams have little more than the changes.
func TestGenerationsAreReceived(t *testing.T) {
	r := boot(t, furnished(t))
	r.task(func() {
		r.ok(r.m.CreatePool(ctx, PoolSpec{Name: "far", Size: 4 << 20}))
		r.ok(r.m.CreatePool(ctx, PoolSpec{Name: "farther", Size: 4 << 20}))
		r.ok(r.m.CreateVolume(ctx, VolumeSpec{Pool: "p", Name: "w", Size: 900 << 9}))
		rnd := rand.New(rand.NewPCG(1, 1))
		last := ""
		for i, name := range []string{"g0", "g1", "g2", "g3", "g4"} {
			for range 3 {
				r.touch("w", rnd, 128, map[uint64]bool{})
			}
			if i == 3 {
				r.ok(r.m.Resize(ctx, ResizeSpec{Name: "w", Size: 1000 << 9}))
			}
			r.ok(r.m.Snapshot(ctx, SnapshotSpec{Of: "w", Names: []string{name}}))
			r.write("w", 5, 1, uint64(i)) // is in the next one
			from, s := "", ReceiveSpec{Name: "far-" + name, Pool: "far"}
			next, relay := "", ReceiveSpec{Name: "farther-" + name, Pool: "farther"}
			if i > 0 {
				from, s.Pool, s.Base = last, "", "far-"+last
				next, relay.Pool, relay.Base = "far-"+last, "", "farther-"+last
			}
			stream := r.sent(name, from)
			changed := uint64(0)
			for _, e := range r.changesOf(name, from).Extents {
				changed += e.Sectors * blk.SectorSize
			}
			if got := uint64(len(stream)); got > changed*11/10+200 {
				t.Errorf("%s: %d bytes are sent, %d have changed", name, got, changed)
			}
			r.ok(r.receive(s, stream))
			r.equal(s.Name, name)
			r.ok(r.receive(relay, r.sent(s.Name, next)))
			r.equal(relay.Name, name)
			last = name
		}
		r.ok(r.check())
		if d, _ := r.c.Name("far-g2"); !d.Status().ReadOnly {
			t.Error("what was received can be written to")
		}
	})
	r.stop()
}

// Clones with stores, their snapshots, and disks are sent complete or since their image, and
// received on the same image or into a file.
func TestStoresAreReceived(t *testing.T) {
	r := boot(t, furnished(t))
	r.task(func() {
		r.ok(r.receive(ReceiveSpec{Name: "n1", Base: "/img/i.img"}, r.sent("a", BaseCheckpoint)))
		r.equal("n1", "a")
		r.ok(r.receive(ReceiveSpec{Name: "n2", Base: "/img/i.img"}, r.sent("l", BaseCheckpoint)))
		r.equal("n2", "l")
		r.ok(r.receive(ReceiveSpec{Name: "n3", File: "/img/n3.img"}, r.sent("bs", "")))
		r.equal("n3", "bs")
		r.ok(r.receive(ReceiveSpec{Name: "n4", Pool: "q"}, r.sent("e", "")))
		r.equal("n4", "e")
		r.ok(r.receive(ReceiveSpec{Pool: "q", Name: "n5"}, r.sent("v", "")))
		r.equal("n5", "v")
		// Changes since a snapshot with a store are received on a copy in a file.
		r.ok(r.receive(ReceiveSpec{Name: "n6", File: "/img/n6.img"}, r.sent("ds", "")))
		r.ok(r.receive(ReceiveSpec{Name: "n7", Base: "n6"}, r.sent("ds2", "ds")))
		r.equal("n7", "ds2")
		r.ok(r.check())
	})
	r.stop()
	again := boot(t, r.h.clone())
	again.task(func() { again.equal("n7", "ds2"); again.ok(again.check()) })
	again.stop()
}

// tiny returns a host with a volume of three sectors, its snapshots s1 and s2, and r1, the
// received s1; and the streams of s1 and of s2 since s1.
func tiny(t *testing.T) (h *host, whole, since []byte) {
	r := boot(t, newHost())
	r.task(func() {
		r.ok(r.m.CreatePool(ctx, PoolSpec{Name: "p", Size: 1 << 20}))
		r.ok(r.m.CreateVolume(ctx, VolumeSpec{Pool: "p", Name: "w", Size: 3 << 9}))
		r.write("w", 0, 1, 1)
		r.ok(r.m.Snapshot(ctx, SnapshotSpec{Of: "w", Names: []string{"s1"}}))
		r.write("w", 2, 1, 2)
		r.ok(r.m.Snapshot(ctx, SnapshotSpec{Of: "w", Names: []string{"s2"}}))
		whole, since = r.sent("s1", ""), r.sent("s2", "s1")
		r.ok(r.m.CreatePool(ctx, PoolSpec{Name: "far", Size: 1 << 20}))
		r.ok(r.receive(ReceiveSpec{Name: "r1", Pool: "far"}, whole))
	})
	r.stop()
	return r.h.clone(), whole, since
}

// A stream that is cut off anywhere, or has any byte changed, is refused with an error of one
// line, and nothing changes.
func TestDamagedStreamsAreRefused(t *testing.T) {
	h, whole, since := tiny(t)
	r := boot(t, h)
	r.task(func() {
		before := r.contents()
		refused := func(s ReceiveSpec, p []byte) {
			t.Helper()
			err := r.receive(s, p)
			if err == nil || strings.Contains(err.Error(), "\n") {
				t.Fatalf("%+v: %v", s, err)
			}
			if now := r.contents(); !maps.Equal(now, before) {
				t.Fatalf("%v has changed\n%s", err, diff(now, before))
			}
		}
		for _, x := range []struct {
			spec ReceiveSpec
			p    []byte
		}{{ReceiveSpec{Name: "n", Pool: "far"}, whole}, {ReceiveSpec{Name: "n", Base: "r1"}, since}} {
			for i := range x.p {
				if testing.Short() && i > 90 && i < len(x.p)-160 && i%29 != 0 {
					continue // it is data there
				}
				q := slices.Clone(x.p)
				q[i] ^= 1 << (i % 8)
				refused(x.spec, q)
				refused(x.spec, x.p[:i])
			}
			r.ok(r.receive(x.spec, x.p))
			r.ok(r.m.Remove(ctx, RemoveSpec{Name: "n"}))
		}
		r.ok(r.check())
	})
	r.stop()
}

func TestWrongBasesAreRefused(t *testing.T) {
	h, whole, since := tiny(t)
	r := boot(t, h)
	r.task(func() {
		r.image("i.img", 128)
		r.image("j.img", 128)
		r.ok(r.m.Clone(ctx, CloneSpec{Base: "/img/i.img", Names: []string{"c"}}))
		r.write("c", 5, 1, 1)
		ofImage := r.sent("c", BaseCheckpoint)
		r.ok(r.receive(ReceiveSpec{Name: "r2", Base: "r1"}, since))
		unsealed := whole[:bytes.Index(whole, []byte("udm seal"))]
		before := r.contents()
		for _, x := range []struct {
			spec  ReceiveSpec
			p     []byte
			errno syscall.Errno
			text  string
		}{
			{ReceiveSpec{Name: "n"}, since, syscall.ESTALE, "s1 is writable and may differ from the sender's copy; name a received device"},
			{ReceiveSpec{Name: "n", Base: "r2"}, since, syscall.ESTALE, "the stream is based on a different s1 than the one here; send all, or the changes since a snapshot that is here"},
			{ReceiveSpec{Name: "n", Base: "/img/j.img"}, ofImage, syscall.ESTALE, "the stream is based on a different i.img than the one here; send all, or the changes since a snapshot that is here"},
			{ReceiveSpec{Name: "n"}, ofImage, syscall.ENXIO, "the stream has the changes since i.img, which does not exist here; receive that first, or name its base"},
			{ReceiveSpec{Name: "n", Base: "r9"}, since, syscall.ENXIO, `there is no device named "r9"; udm ls lists the devices`},
			{ReceiveSpec{Name: "n", Base: "r1"}, whole, syscall.EINVAL, "the stream has all of n and needs no base; name a pool or a file for it"},
			{ReceiveSpec{Name: "n", Base: "r1", Pool: "p"}, since, syscall.EINVAL, "the stream has the changes since s1 and is stored beside it; name no pool or file"},
			{ReceiveSpec{Name: "n"}, whole, syscall.EINVAL, "the stream has all of n; name a pool or a new file for it"},
			{ReceiveSpec{Name: "r1", Pool: "p"}, whole, syscall.EEXIST, "a device named r1 exists already; choose another name, or rename the device: udm rename r1 OTHER"},
			{ReceiveSpec{Name: "n", Pool: "p"}, unsealed, syscall.EBADMSG, "the stream has no checksum, or is cut off before it; if rbd wrote it, use --unsealed"},
			{ReceiveSpec{Name: "n", Resume: true}, whole, syscall.ENXIO, `no part of "n" has been received; start from the beginning`},
			{ReceiveSpec{Name: "n", File: "/img/i.img"}, whole, syscall.EEXIST, "/img/i.img exists; name a new file"},
		} {
			err := r.receive(x.spec, x.p)
			if !errors.Is(err, x.errno) || err.Error() != x.text {
				t.Errorf("%+v: %v, want %q", x.spec, err, x.text)
			}
			if now := r.contents(); !maps.Equal(now, before) {
				t.Fatalf("%v has changed\n%s", err, diff(now, before))
			}
		}
		r.ok(r.receive(ReceiveSpec{Name: "n", Pool: "p", Unsealed: true}, unsealed))
		r.equal("n", "s1")
		r.ok(r.check())
	})
	r.stop()
}

// A snapshot that was written to is no longer a checkpoint.
func TestSendRefuses(t *testing.T) {
	h, _, _ := tiny(t)
	r := boot(t, h)
	r.task(func() {
		r.write("s1", 1, 1, 7)
		for _, x := range []struct {
			spec SendSpec
			text string
		}{
			{SendSpec{Name: "s2", From: "s1"}, "s1 was written to after it was taken, so received copies differ from it; send all of s2"},
			{SendSpec{Name: "s2", From: "w"}, "w is not a snapshot, so its changes cannot be applied to a received copy; name a snapshot"},
			{SendSpec{Name: "s2", From: "none"}, `there is no device named "none"; udm ls lists the devices`},
			{SendSpec{Name: "s2", From: BaseCheckpoint}, "s2 has no base; name a snapshot of it"},
			{SendSpec{Name: "none"}, `there is no device named "none"; udm ls lists the devices`},
		} {
			if err := r.m.Send(ctx, x.spec, io.Discard); err == nil || err.Error() != x.text {
				t.Errorf("%+v: %v, want %q", x.spec, err, x.text)
			}
		}
		full := errors.New("no room")
		if err := r.m.Send(ctx, SendSpec{Name: "s2"}, failing{full}); !errors.Is(err, full) {
			t.Error(err)
		}
		r.ok(r.check())
	})
	r.stop()
}

type failing struct{ error }

func (f failing) Write([]byte) (int, error) { return 0, f.error }

// A stream that is cut off anywhere can be resumed, repeatedly and by another daemon. Streams
// that do not continue it are refused.
func TestCutStreamsGoOn(t *testing.T) {
	h, whole, since := tiny(t)
	for i, p := range [][]byte{whole, since} {
		for cut := 60; cut < len(p); cut += 1 + (len(p)-cut)/9 {
			r := boot(t, h.clone())
			spec := ReceiveSpec{Name: "n", Pool: "far", Keep: true}
			if i == 1 {
				spec.Pool, spec.Base = "", "r1"
			}
			var at uint64
			r.task(func() {
				if err := r.receive(spec, p[:cut]); err == nil {
					t.Fatalf("cut at %d: it is taken", cut)
				}
				at = r.incoming()
				if _, err := r.c.Name("n"); err == nil {
					t.Fatal("a part of it is there under its name")
				}
				if err := r.receive(ReceiveSpec{Name: "n", Resume: true}, p); err == nil && at > 0 {
					t.Fatalf("it begins anew at %d", at)
				}
				if now := r.incoming(); now != at {
					t.Fatalf("where to go on was %d and is %d", at, now)
				}
			})
			r.stop()
			r = boot(t, r.h.clone())
			r.task(func() {
				var b bytes.Buffer
				r.ok(r.m.Send(ctx, SendSpec{Name: []string{"s1", "s2"}[i], From: []string{"", "s1"}[i], Offset: at}, &b))
				if !bytes.Equal(b.Bytes(), p[at:]) {
					t.Fatalf("from %d on another stream is sent", at)
				}
				r.ok(r.receive(ReceiveSpec{Name: "n", Resume: true}, b.Bytes()))
				r.equal("n", []string{"s1", "s2"}[i])
				r.ok(r.check())
			})
			r.stop()
		}
	}
}

// looking calls look before its end.
type looking struct {
	io.Reader
	look func()
}

func (l *looking) Read(p []byte) (int, error) {
	n, err := l.Reader.Read(p)
	if err != nil {
		l.look()
	}
	return n, err
}

// While a stream is received that is told, so that who goes on with one that was cut off
// knows when the daemon has seen its end.
func TestReceivingIsTold(t *testing.T) {
	h, whole, _ := tiny(t)
	r := boot(t, h)
	state := func() string {
		o, err := r.m.Object("n" + incomingSuffix)
		r.ok(err)
		return o.State
	}
	r.task(func() {
		in := &looking{bytes.NewReader(whole[:len(whole)/2]), func() {
			if got := state(); got != Receiving {
				t.Errorf("while it is received it is %s", got)
			}
		}}
		if _, err := r.m.Receive(ctx, ReceiveSpec{Name: "n", Pool: "far", Keep: true}, in); err == nil {
			t.Error("it is taken")
		}
		if got := state(); got != "incoming" {
			t.Errorf("when it is cut off it is %s", got)
		}
	})
	r.stop()
}

// incoming returns the position at which to resume n.
func (r *rig) incoming() uint64 {
	r.t.Helper()
	list := r.m.Objects()
	i := slices.IndexFunc(list, func(o Object) bool { return o.Name == "n"+incomingSuffix })
	if i < 0 || list[i].Incoming == nil {
		r.t.Fatalf("nothing is incoming: %+v", list)
	}
	return *list[i].Incoming
}

// A received object has the data and zeroes of the stream, wherever the two meet, and whatever
// the base contained.
func TestAnyStreamIsReceived(t *testing.T) {
	for seed := range uint64(8) {
		r := boot(t, newHost())
		rnd := rand.New(rand.NewPCG(seed, 8))
		r.task(func() {
			r.ok(r.m.CreatePool(ctx, PoolSpec{Name: "p", Size: 2 << 20}))
			const size = 700 << 9
			model := make([]byte, size)
			from := ""
			for _, to := range []string{"g0", "g1", "g2"} {
				var b bytes.Buffer
				w, err := rbddiff.NewWriter(&b, 0, rbddiff.Header{From: from, To: to, Size: size})
				r.ok(err)
				for at := uint64(0); ; {
					at += rnd.Uint64N(150) << 9
					n := rnd.Uint64N(300) << 9
					if at+n > size {
						break
					}
					if rnd.IntN(2) == 0 {
						clear(model[at:][:n])
						r.ok(w.Zero(at, n))
					} else {
						for i := range model[at:][:n] {
							model[at:][:n][i] = byte(rnd.Uint32())
						}
						r.ok(w.Data(at, model[at:][:n]))
					}
					at += n
				}
				s := ReceiveSpec{Pool: "p"}
				if from != "" {
					s.Pool = ""
				}
				r.ok(w.Close(rbddiff.Seal{From: from, To: to}))
				r.ok(r.receive(s, b.Bytes()))
				if !bytes.Equal(r.holds(to), model) {
					t.Fatalf("seed %d: %s is not what was sent", seed, to)
				}
				from = to
			}
			r.ok(r.check())
		})
		r.stop()
	}
}
