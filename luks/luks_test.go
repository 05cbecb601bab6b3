package luks

import (
	"bytes"
	"flag"
	"fmt"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/env"
	"udm/internal/secret"
)

// cheap are derivations that take no time.
var cheap = map[int]KDF{1: {Type: "pbkdf2", Hash: "sha256", Iterations: 1000}, 2: {Type: "argon2id", Time: 1, Memory: 32, CPUs: 1}}

const diskSectors = 64 << 10 // 32 MiB

// small is a format without costs.
func small(version int) Format {
	return Format{Version: version, KeySize: 32, KDF: cheap[version], DigestIterations: 1000}
}

func create(t *testing.T, d blk.Device, f Format, pass string) *Container {
	t.Helper()
	c, err := Create(env.Real(), d, f, []byte(pass), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func open(t *testing.T, d blk.Device) *Container {
	t.Helper()
	c, err := Open(env.Real(), d, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func unlock(t *testing.T, c *Container, pass string) *Key {
	t.Helper()
	k, err := c.Unlock([]byte(pass), AnySlot)
	if err != nil {
		t.Fatalf("%q: %v", pass, err)
	}
	return k
}

// shut sees that a passphrase opens nothing.
func shut(t *testing.T, c *Container, pass string) {
	t.Helper()
	if _, err := c.Unlock([]byte(pass), AnySlot); !ErrWrongKey(err) {
		t.Errorf("%q: %v, want that it does not open", pass, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestLife(t *testing.T) {
	for version := 1; version <= 2; version++ {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			d := memdev.New(diskSectors)
			c := create(t, d, small(version), "one")
			first := bytes.Clone(unlock(t, c, "one").secret.Bytes())
			shut(t, c, "two")
			slot, err := c.AddKey(unlock(t, c, "one"), []byte("two"), cheap[version])
			if err != nil || slot != 1 {
				t.Fatalf("slot %d, %v", slot, err)
			}
			c = open(t, d)
			k := unlock(t, c, "two")
			if k.Slot != 1 || !bytes.Equal(k.secret.Bytes(), first) {
				t.Errorf("slot %d, or another key", k.Slot)
			}
			slot, err = c.ChangeKey(k, []byte("three"), cheap[version])
			if want := 3 - version; err != nil || slot != want {
				t.Fatalf("slot %d, %v", slot, err) // version 1 moves on to the next
			}
			shut(t, c, "two")
			if k := unlock(t, open(t, d), "three"); !bytes.Equal(k.secret.Bytes(), first) {
				t.Error("another key")
			}
			must(t, c.RemoveKey(0, false))
			shut(t, open(t, d), "one")
			if err := c.RemoveKey(0, false); err == nil {
				t.Error("removed a slot that is not in use")
			}
			if err := c.RemoveKey(slot, false); err == nil {
				t.Error("removed the last slot without force")
			}
			must(t, c.RemoveKey(slot, true))
			shut(t, open(t, d), "three")
			if k.Close(); k.secret.Len() != 0 || strings.Contains(k.String(), "0000") {
				t.Error("a closed key is still there")
			}
		})
	}
}

// TestSlotsEnd fills all slots.
func TestSlotsEnd(t *testing.T) {
	for version, want := range map[int]int{1: slots1, 2: maxSlots} {
		c := create(t, memdev.New(diskSectors), small(version), "0")
		k := unlock(t, c, "0")
		n := 1
		for ; n < 100; n++ {
			if _, err := c.AddKey(k, fmt.Append(nil, n), cheap[version]); err != nil {
				t.Log(err)
				break
			}
		}
		if n != want {
			t.Errorf("version %d has %d slots", version, n)
		}
		unlock(t, c, fmt.Sprint(n-1))
	}
}

func TestLine(t *testing.T) {
	f := small(2)
	f.SectorSize = 4096
	c := create(t, memdev.New(diskSectors+5), f, "x")
	k := &Key{secret: secret.Take(bytes.Repeat([]byte{0xab}, 32))}
	l, sectors, err := c.Line(k, "/a", diskSectors+5)
	must(t, err)
	if want := "aes-xts-plain64 " + strings.Repeat("ab", 32) + " 0 /a 32768 1 sector_size:4096"; l.String() != want || sectors != diskSectors-32768 {
		t.Errorf("%v, %d sectors", l, sectors)
	}
	if _, _, err := c.Line(k, "/a", 100); err == nil {
		t.Error("a line for a device that is too short")
	}
}

// TestDetached: the data of a detached header begin at sector 0.
func TestDetached(t *testing.T) {
	for version := 1; version <= 2; version++ {
		f := small(version)
		f.Detached = true
		d := memdev.New(diskSectors / 2)
		create(t, d, f, "x")
		if c := open(t, d); c.Header.Segment.Offset != 0 || !c.detached() {
			t.Errorf("version %d: %+v", version, c.Header.Segment)
		}
	}
}

// scenario is a change of a disk, the passphrases that may open it before and after
// it, and those of which one must.
type scenario struct {
	name   string
	change func(c *Container, k *Key, version int) error
	must   []string // at least one of these opens the disk
	after  string   // opens it in the end
}

var scenarios = []scenario{
	{"add", func(c *Container, k *Key, v int) error {
		_, err := c.AddKey(k, []byte("new"), cheap[v])
		return err
	}, []string{"old"}, "new"},
	{"change", func(c *Container, k *Key, v int) error {
		_, err := c.ChangeKey(k, []byte("new"), cheap[v])
		return err
	}, []string{"old", "new"}, "new"},
	{"remove", func(c *Container, k *Key, _ int) error { return c.RemoveKey(k.Slot, false) }, []string{"other"}, "other"},
	{"repair", func(c *Container, k *Key, _ int) error { return c.Repair() }, []string{"old"}, "old"},
}

// TestPowerCuts cuts the power at each I/O of each change. What is left has a header
// that says the same about the data, and opens by the old or the new passphrase to
// the same key.
func TestPowerCuts(t *testing.T) { cutEach(t, (*scenario).run) }

// cutEach calls run for each scenario, disk and I/O that fails with all after it. The key opens the disk.
func cutEach(t *testing.T, run func(s *scenario, t *testing.T, f *blktest.Failer, d *memdev.Device, k *Key)) {
	for version := 1; version <= 2; version++ {
		d := memdev.New(diskSectors, memdev.Volatile)
		c := create(t, d, small(version), "old")
		k := unlock(t, c, "old")
		_, err := c.AddKey(k, []byte("other"), cheap[version])
		must(t, err)
		for _, s := range scenarios {
			t.Run(fmt.Sprintf("%s%d", s.name, version), func(t *testing.T) {
				n := blktest.FailEach(t, func(t *testing.T, f *blktest.Failer) { run(&s, t, f, d.CrashCloneAll(), k) })
				t.Logf("%d I/Os", n)
			})
		}
	}
}

func (s *scenario) run(t *testing.T, f *blktest.Failer, d *memdev.Device, k *Key) {
	c := open(t, d)
	segment := c.Header.Segment
	want := bytes.Clone(k.secret.Bytes())
	c.store.dev = f.Wrap(d)
	err := s.change(c, k, c.Header.Version)
	if !told(err, c, f) {
		t.Errorf("%v: %v", f, err)
	}
	_, _ = c.Unlock([]byte(s.must[0]), AnySlot) // c can be used even if its header could not be read again
	for _, after := range []*memdev.Device{d.CrashCloneNone(), d.CrashClone(1), d.CrashClone(2), d.CrashCloneAll()} {
		c := open(t, after)
		if c.Header.Segment != segment {
			t.Errorf("the data are said to be %+v", c.Header.Segment)
		}
		opened := false
		for _, pass := range s.must {
			k, err := c.Unlock([]byte(pass), AnySlot)
			opened = opened || err == nil
			if err == nil && !bytes.Equal(k.secret.Bytes(), want) {
				t.Errorf("%q opens another key", pass)
			}
		}
		if !opened {
			t.Errorf("none of %v opens the disk", s.must)
		}
		if err == nil { // was durable
			unlock(t, c, s.after)
		}
	}
}

// told reports whether a failure was reported, or has left one copy of the header
// that is whole.
func told(err error, c *Container, f *blktest.Failer) bool {
	if err != nil || !f.Failed() {
		return f.Failed() == (err != nil)
	}
	return c.Header.Damaged != ""
}

// TestPowerCutsFormat: a disk that was being formatted is none, or is the new one.
func TestPowerCutsFormat(t *testing.T) {
	for version := 1; version <= 2; version++ {
		blktest.FailEach(t, func(t *testing.T, f *blktest.Failer) {
			d := memdev.New(diskSectors, memdev.Volatile)
			c, err := Create(env.Real(), f.Wrap(d), small(version), []byte("new"), Options{})
			if !told(err, c, f) {
				t.Errorf("%v: %v", f, err)
			}
			for _, after := range []*memdev.Device{d.CrashCloneNone(), d.CrashClone(1), d.CrashCloneAll()} {
				if c, err := Open(env.Real(), after, Options{}); err == nil {
					unlock(t, c, "new")
				} else if !f.Failed() {
					t.Error(err)
				}
			}
		})
	}
}

var allBits = flag.Bool("allbits", false, "flip each bit of headers, not a sample")

// TestEveryBitOfTheHeader flips bits of a header of version 2, one at a time. The other copy is
// used, and says the same.
func TestEveryBitOfTheHeader(t *testing.T) {
	d := memdev.New(diskSectors)
	c := create(t, d, small(2), "pass")
	want := fmt.Sprintf("%+v", *c.Header)
	k := unlock(t, c, "pass")
	all, err := c.store.read(0, 2*minSize2)
	must(t, err)
	bits := 0
	for bit := 0; bit < len(all)*8; bit++ {
		at := bit / 8 % minSize2
		if !*allBits && bit%(9+at/4000*64) > 0 {
			continue // in the zeroes at the end fewer
		}
		bits++
		sector := uint64(bit / 8 / 512)
		p := bytes.Clone(all[sector*512 : (sector+1)*512])
		p[at%512] ^= 1 << (bit % 8)
		must(t, blk.WriteSectors(env.Real(), d, p, sector, 0))
		got := open(t, d)
		if covered := at < 480 || at >= 512; covered != (got.Header.Damaged != "") { // of the checksum's field, the first half is used
			t.Fatalf("bit %d: damaged %q", bit, got.Header.Damaged)
		}
		got.Header.Damaged = ""
		if s := fmt.Sprintf("%+v", *got.Header); s != want {
			t.Fatalf("bit %d: %s", bit, s)
		}
		must(t, blk.WriteSectors(env.Real(), d, all[sector*512:(sector+1)*512], sector, 0))
	}
	t.Logf("%d bits", bits)
	must(t, blk.WriteSectors(env.Real(), d, make([]byte, 4096), 0, 0))
	got := open(t, d)
	if !bytes.Equal(unlock(t, got, "pass").secret.Bytes(), k.secret.Bytes()) {
		t.Error("another key")
	}
	must(t, got.Repair())
	if got := open(t, d); got.Header.Damaged != "" {
		t.Errorf("after the repair: %s", got.Header.Damaged)
	}
}

// TestEveryBitOfAHeader1 flips bits of a header of version 1, one at a time: no passphrase
// gives a key that is not the disk's.
func TestEveryBitOfAHeader1(t *testing.T) {
	d := memdev.New(diskSectors)
	c := create(t, d, small(1), "pass")
	k := unlock(t, c, "pass")
	limits := Options{Limits: Limits{Iterations: 70000}}
	good := c.v1.raw
	step, bits := 9, 0
	if *allBits {
		step = 1
	}
	for bit := 0; bit < size1*8; bit += step {
		bits++
		raw := good
		raw[bit/8] ^= 1 << (bit % 8)
		must(t, c.store.write(0, raw[:]))
		got, err := Open(env.Real(), d, limits)
		if err != nil {
			continue
		}
		if opened, err := got.Unlock([]byte("pass"), AnySlot); err == nil && !bytes.Equal(opened.secret.Bytes(), k.secret.Bytes()) {
			t.Errorf("bit %d: another key", bit)
		}
	}
	t.Logf("%d bits", bits)
}

// TestUnknownIsKept: tokens and what is not known in the JSON outlive changes.
func TestUnknownIsKept(t *testing.T) {
	d := memdev.New(diskSectors)
	c := create(t, d, small(2), "one")
	c.v2.object("tokens")["3"] = map[string]any{"type": "mine", "keyslots": []any{"0", "1"}, "x": "y"}
	c.v2.object("config")["spare"] = map[string]any{"deep": []any{"er"}}
	c.v2.doc["news"] = "yes"
	must(t, c.Repair())
	k := unlock(t, c, "one")
	_, err := c.AddKey(k, []byte("two"), cheap[2])
	must(t, err)
	must(t, c.RemoveKey(0, false))
	c = open(t, d)
	if got := c.Header.Tokens[3]; got != `{"keyslots":["1"],"type":"mine","x":"y"}` {
		t.Error(got)
	}
	if fmt.Sprint(c.v2.object("config")["spare"], c.v2.doc["news"]) != "map[deep:[er]]yes" {
		t.Errorf("%v", c.v2.doc)
	}
}

func TestRefusesHeaders(t *testing.T) {
	for _, c := range []struct {
		change func(l *luks2)
		want   string
	}{
		{func(l *luks2) {
			l.object("config")["requirements"] = map[string]any{"mandatory": []any{"online-reencrypt-v2"}}
		}, "re-encrypted"},
		{func(l *luks2) {
			l.object("config")["requirements"] = map[string]any{"mandatory": []any{"magic"}}
		}, `requires "magic"`},
		{func(l *luks2) { l.object("segments")["1"] = l.object("segments")["0"] }, "2 segments"},
		{func(l *luks2) { l.object("segments")["0"].(map[string]any)["type"] = "linear" }, "not encrypted"},
		{func(l *luks2) {
			l.object("segments")["0"].(map[string]any)["integrity"] = map[string]any{"type": "hmac(sha256)", "journal_encryption": "none", "journal_integrity": "x"}
		}, "keys"},
		{func(l *luks2) {
			l.object("segments")["0"].(map[string]any)["integrity"] = map[string]any{"journal_encryption": "none", "journal_integrity": "none"}
		}, "no type"},
		{func(l *luks2) { l.object("keyslots")["1"] = l.object("keyslots")["0"] }, "overlap"},
		{func(l *luks2) { l.object("keyslots")["01"] = l.object("keyslots")["0"] }, `number "01"`},
		{func(l *luks2) { delete(l.doc, "digests") }, "no digest"},
	} {
		d := memdev.New(diskSectors)
		l := create(t, d, small(2), "x")
		c.change(l.v2)
		_ = l.Repair() // it reads what it has written
		if _, err := Open(env.Real(), d, Options{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
}

// TestCostsAreBounded: a header that asks for too much is refused before it gets
// anything.
func TestCostsAreBounded(t *testing.T) {
	for _, k := range []KDF{
		{Type: "argon2id", Time: 4, Memory: 4 << 20, CPUs: 4},
		{Type: "argon2i", Time: 1 << 30, Memory: 1 << 10, CPUs: 4},
		{Type: "argon2id", Time: 1, Memory: 1 << 10, CPUs: 256},
		{Type: "argon2id", Time: 0, Memory: 1 << 10, CPUs: 1},
		{Type: "pbkdf2", Hash: "sha256", Iterations: 1 << 31},
		{Type: "pbkdf2", Hash: "sha256"},
		{Type: "pbkdf2", Hash: "none", Iterations: 1000},
		{Type: "scrypt"},
	} {
		_, err := k.derive([]byte("x"), 32, DefaultLimits)
		if t.Log(err); err == nil {
			t.Errorf("%+v is accepted", k)
		}
	}
}

func TestBackup(t *testing.T) {
	for version := 1; version <= 2; version++ {
		d := memdev.New(diskSectors)
		c := create(t, d, small(version), "old")
		var b bytes.Buffer
		must(t, c.Backup(&b))
		k := unlock(t, c, "old")
		_, err := c.ChangeKey(k, []byte("new"), cheap[version])
		must(t, err)
		must(t, Restore(env.Real(), d, b.Bytes(), false, Options{}))
		if got := unlock(t, open(t, d), "old"); !bytes.Equal(got.secret.Bytes(), k.secret.Bytes()) {
			t.Error("another key")
		}
		shut(t, open(t, d), "new")
		other := memdev.New(diskSectors)
		create(t, other, small(version), "other")
		if err := Restore(env.Real(), other, b.Bytes(), false, Options{}); err == nil {
			t.Error("restored the header of another disk")
		}
		must(t, Restore(env.Real(), other, b.Bytes(), true, Options{}))
		must(t, Restore(env.Real(), memdev.New(diskSectors), b.Bytes(), false, Options{}))
		for _, n := range []int{0, 100, 4096, 100000} {
			if err := Restore(env.Real(), d, b.Bytes()[:n], true, Options{}); err == nil {
				t.Errorf("restored %d bytes", n)
			}
		}
	}
}

func TestFormatRefuses(t *testing.T) {
	for _, f := range []Format{
		{Version: 3}, {Encryption: "serpent-xts-plain64"}, {KeySize: 33}, {Hash: "md4"}, {SectorSize: 768}, {Version: 1, SectorSize: 4096}, {Version: 1, Label: "x"},
		{Label: strings.Repeat("x", 48)}, {Offset: 1000}, {Offset: 8192}, {Offset: 1 << 40}, {Version: 1, Offset: 4096},
	} {
		d := memdev.New(diskSectors)
		if f.KDF.Type == "" && f.Version < 3 {
			f.KDF = cheap[max(f.Version, 1)]
		}
		if _, err := Create(env.Real(), d, f, []byte("x"), Options{}); err == nil {
			t.Errorf("%+v is accepted", f)
		}
	}
	if _, err := Create(env.Real(), memdev.New(1000), small(2), []byte("x"), Options{}); err == nil {
		t.Error("a disk that is too short is accepted")
	}
}

// TestForeignCipher: a disk whose cipher is not here is listed, and refused in words.
func TestForeignCipher(t *testing.T) {
	for _, name := range []string{"serpent", "camellia"} {
		d := memdev.New(diskSectors)
		raw := create(t, d, small(1), "pass").v1.raw
		copy(raw[8:40], append([]byte(name), make([]byte, 32)...)) // the cipher's name
		c := open(t, d)
		must(t, c.store.write(0, raw[:]))
		c = open(t, d)
		if !strings.HasPrefix(c.Header.Segment.Encryption, name+"-") {
			t.Errorf("listed as %q", c.Header.Segment.Encryption)
		}
		if _, err := c.Unlock([]byte("pass"), AnySlot); err == nil || ErrWrongKey(err) || !strings.Contains(err.Error(), `there is no cipher "`+name+`"; use`) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
