package crypt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
	"udm/targets/crypt"
	"udm/targets/crypt/skcipher"
	"udm/targets/internal/targettest"
	"udm/targets/linear"
)

// store is a key store of two keys.
type store struct{}

func (store) Key(kind, description string) ([]byte, error) {
	if kind == "logon" && description == "udm:one" {
		return bytes.Repeat([]byte{1}, 32), nil
	}
	return nil, dm.Errorf(dm.ENOKEY, "no key")
}

var types = []*dm.Type{crypt.Type(nil), linear.Type()}

var (
	key64 = strings.Repeat("0123456789abcdef", 8)
	key32 = strings.Repeat("fedcba9876543210", 4)
)

func table(sectors int, cipher, key, rest string) string {
	return fmt.Sprintf("0 %d crypt %s %s %s", sectors, cipher, key, rest)
}

func TestConforms(t *testing.T) {
	for _, c := range []struct{ name, table string }{
		{"xts", table(4096, "aes-xts-plain64", key64, "0 a 3")},
		{"essiv", table(4096, "aes-cbc-essiv:sha256", key32, "7 a 3 1 allow_discards")},
		{"large", table(4096, "aes-xts-plain64", key32, "8 a 8 2 sector_size:4096 iv_large_sectors")},
		{"inline", table(4096, "aes-xts-plain64", key32, "0 a 0 2 no_read_workqueue no_write_workqueue")},
		{"null", table(4096, "cipher_null-ecb", "-", "0 a 0")},
	} {
		t.Run(c.name, func(t *testing.T) { targettest.Conforms(t, blktest.Suite{}, types, c.table) })
	}
}

func TestConformsThreeDeep(t *testing.T) {
	targettest.Conforms(t, blktest.Suite{}, types, table(8192, "aes-xts-plain64", key64, "0 a 0"),
		"0 5000 linear /dev/dm-0 7", table(4096, "aes-cbc-plain", key32, "0 /dev/dm-1 9"))
}

func TestRefuses(t *testing.T) {
	targettest.New(t, types).Refuses(strings.NewReplacer("K64", key64, "K32", key32).Replace(`
		0 64 crypt => EINVAL Not enough arguments
		0 64 crypt aes-xts-plain64 K64 0 a => EINVAL Not enough arguments
		0 64 crypt aes-xts-plain64 :32logon 0 a 0 => EINVAL Cannot parse key size
		0 64 crypt aes-xts-plain64 :q:logon:x 0 a 0 => EINVAL Cannot parse key size
		0 64 crypt aes-xts-plain64 :32:logon:x 0 a 0 => EINVAL Error decoding and setting key
		0 64 crypt aes-xts-plain64 K64 0 a 0 9 => EINVAL Invalid number of feature args
		0 64 crypt aes-xts-plain64 K64 0 a 0 1 => EINVAL Invalid number of feature args
		0 64 crypt aes-xts-plain64 K64 0 a 0 1 foo => EINVAL Invalid feature arguments
		0 64 crypt aes-xts-plain64 K64 0 a 0 1 sector_size:x => EINVAL Invalid feature arguments
		0 64 crypt aes-xts-plain64 K64 0 a 0 1 sector_size:256 => EINVAL Invalid feature value for sector_size
		0 64 crypt aes-xts-plain64 K64 0 a 0 1 sector_size:1536 => EINVAL Invalid feature value for sector_size
		0 64 crypt aes-xts-plain64 K64 0 a 0 1 sector_size:8192 => EINVAL Invalid feature value for sector_size
		0 63 crypt aes-xts-plain64 K64 0 a 0 1 sector_size:4096 => EINVAL Device size is not multiple of sector_size feature
		0 64 crypt aes-xts-plain64 K64 0 a 0 1 integrity:16:aead => EINVAL Bad cipher specification
		0 64 crypt aes-xts-plain64 K64 0 a 0 1 integrity:0:aead => EINVAL Invalid integrity arguments
		0 64 crypt aes-xts-plain64 K64 0 a 0 1 integrity:481:none => EINVAL Invalid integrity arguments
		0 64 crypt aes-xts-plain64 K64 0 a 0 1 integrity:16:hmac => EINVAL Unknown integrity profile
		0 64 crypt aes-xts-plain64 K64 0 a 0 1 integrity:16 => EINVAL Invalid feature arguments
		0 64 crypt aes-xts-random K64 0 a 0 1 integrity:16:none => EINVAL Integrity profile not supported.
		0 64 crypt capi:gcm(aes)-random K32 0 a 0 1 integrity:28:aead => EINVAL Integrity profile not supported.
		0 64 crypt capi:gcm(aes)-random K64 0 a 0 1 integrity:28:aead => EINVAL Error decoding and setting key
		0 64 crypt capi:ccm(aes)-random K32 0 a 0 1 integrity:28:aead => ENOENT Error allocating crypto tfm
		0 64 crypt capi:authenc(hmac(md4),xts(aes))-plain64 K32 0 a 0 1 integrity:28:aead => ENOENT Error allocating crypto tfm
		0 64 crypt aes-xts-plain64 K64 7 a 0 1 sector_size:4096 => EINVAL Invalid iv_offset sector
		0 64 crypt aes-xts-plain64 K64 q a 0 => EINVAL Invalid iv_offset sector
		0 64 crypt aes-xts-plain64 K64 0 a q => EINVAL Invalid device sector
		0 64 crypt aes-xts-plain64 K64 0 /none q => ENODEV Device lookup failed
		0 64 crypt aes-xts-plain64 K64 0 a 16380 => EINVAL 7:0 too small for target: start=16380, len=64, dev_size=16384
		0 64 crypt aes-xts-plain64 - 0 a 0 => EINVAL Error decoding and setting key
		0 64 crypt aes-xts-plain64 f 0 a 0 => EINVAL Error decoding and setting key
		0 64 crypt aes-xts-plain64 abcd 0 a 0 => EINVAL Error decoding and setting key
		0 64 crypt aes-cbc-plain -K32 0 a 0 => EINVAL Error decoding and setting key
		0 64 crypt aes-cbc-plain zzK32 0 a 0 => EINVAL Error decoding and setting key
		0 64 crypt cipher_null-ecb K32 0 a 0 => EINVAL Error decoding and setting key
		0 64 crypt aes-cbc-foo K32 0 a 0 => EINVAL Invalid IV mode
	`))
}

// TestErrorsDoNotTellTheKey: no error text has any word of a key, wherever it stands.
func TestErrorsDoNotTellTheKey(t *testing.T) {
	r := targettest.New(t, types)
	d, err := r.Control.Create("x", "", -1)
	r.Must(err)
	secret := "c0ffee" + key32[6:]
	for _, text := range []string{
		"aes-xts-plain64 " + secret + " 0 a 0 1 integrity:1:aead", "aes-xts-plain64 0 " + secret + " a 0", "aes-xts-plain64 " + secret + "zz 0 a 0",
		"aes-cbc-plain " + secret + "00 0 a 0", "aes-cbc-plain " + secret + " q a 0", "aes-cbc-plain " + secret + " 0 a q", "aes-cbc-plain " + secret + " 0 /none 0",
		"aes-cbc-plain " + secret + " 0 a 0 1 foo", "aes-cbc-plain " + secret + " 0 a 99999", "aes-cbc-plain " + secret,
	} {
		specs, err := dm.ParseTable("0 64 crypt " + text)
		r.Must(err)
		_, parsed := r.Control.ParseLines(specs)
		if err := errors.Join(d.Load(specs, dm.Mode{Write: true}), parsed); err == nil || strings.Contains(err.Error(), "c0ffee") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestText(t *testing.T) {
	r := targettest.New(t, []*dm.Type{crypt.Type(store{})})
	d := r.Device("x", "0 64 crypt aes-xts-plain64 "+strings.ToUpper(key64)+"a 5 a 8")
	r.Lines(d, dm.Info, "0 64 crypt ")
	r.Lines(d, dm.TableText, "0 64 crypt aes-xts-plain64 "+key64+" 5 7:0 8")
	features := " 8 allow_discards same_cpu_crypt high_priority submit_from_crypt_cpus no_read_workqueue no_write_workqueue sector_size:4096 iv_large_sectors"
	r.Swap(d, "0 64 crypt capi:cbc(aes)-essiv:sha256 "+key32+" 8 b 0 8 iv_large_sectors sector_size:4096 HIGH_PRIORITY no_write_workqueue no_read_workqueue submit_from_crypt_cpus same_cpu_crypt allow_discards")
	r.Lines(d, dm.TableText, "0 64 crypt capi:cbc(aes)-essiv:sha256 "+key32+" 8 7:1 0"+features)
	r.Swap(d, "0 64 crypt aes-xts-plain64 :32:logon:udm:one 0 a 0 0")
	r.Lines(d, dm.TableText, "0 64 crypt aes-xts-plain64 :32:logon:udm:one 0 7:0 0")
	r.Swap(d, "0 64 crypt cipher_null-ecb - 0 a 0")
	r.Lines(d, dm.TableText, "0 64 crypt cipher_null-ecb - 0 7:0 0")
}

func TestKeyMessages(t *testing.T) {
	r := targettest.New(t, []*dm.Type{crypt.Type(store{})})
	d := r.Device("x", table(64, "aes-xts-plain64", key32, "0 a 0"))
	r.Write(d, 0, 8, 3)
	r.Message(d, "key", "", syscall.EINVAL)
	r.Message(d, "hello world", "", syscall.EINVAL)
	r.Message(d, "key wipe", "", syscall.EINVAL) // not suspended
	r.Suspend(d, false)
	r.Message(d, "key wipe now", "", syscall.EINVAL)
	r.Message(d, "key set "+key64, "", syscall.EINVAL)
	r.Message(d, "key set zz"+key32[2:], "", syscall.EINVAL)
	r.Message(d, "KEY WIPE", "", 0)
	zeroes := strings.Repeat("0", 64)
	r.Lines(d, dm.TableText, table(64, "aes-xts-plain64", zeroes, "0 7:0 0"))
	if err := d.Resume(context.Background(), false); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("resumed without a key: %v", err)
	}
	r.Message(d, "key set "+key32, "", 0)
	r.Resume(d)
	r.Want(d, 0, 8, 0, 3)
	r.Suspend(d, false)
	r.Message(d, "key set :32:logon:none", "", dm.ENOKEY)
	r.Message(d, "key set :32:logon:udm:one", "", 0)
	r.Resume(d)
	r.Lines(d, dm.TableText, table(64, "aes-xts-plain64", ":32:logon:udm:one", "0 7:0 0"))
	r.Write(d, 0, 8, 4)
	r.Want(d, 0, 8, 0, 4)
}

// encrypted is what a disk holds below a device to which pattern seed was written.
func encrypted(t *testing.T, cipher string, key []byte, sector, sectors, seed, vector uint64) []byte {
	t.Helper()
	s, err := skcipher.Parse(cipher)
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.New(key, 512, false)
	if err != nil {
		t.Fatal(err)
	}
	p := blktest.Pattern(sector, sectors, seed)
	c.Encrypt(p, vector)
	return p
}

// TestPlaces: what lies where below, and by which vector.
func TestPlaces(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 8 linear b 0\n8 1024 crypt aes-xts-plain64 "+strings.Repeat("01", 32)+" 100 a 40")
	r.Write(d, 8, 1024, 5)
	got := make([]byte, 1024*512)
	r.Must(blk.ReadSectors(r.Sim, r.Disk("a"), got, 40))
	if !bytes.Equal(got, encrypted(t, "aes-xts-plain64", bytes.Repeat([]byte{1}, 32), 8, 1024, 5, 100)) {
		t.Error("the disk holds something else")
	}
	r.Want(d, 8, 1024, 8, 5)
	r.Trace("a", "write 40+256\nwrite 296+256\nwrite 552+256\nwrite 808+256\nread 40+256\nread 296+256\nread 552+256\nread 808+256\n")
}

// TestCallersMemory: the data of a write stay as they were, and odd buffers are
// filled as whole ones.
func TestCallersMemory(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", table(1024, "aes-xts-plain64", key32, "0 a 0 2 sector_size:4096 iv_large_sectors"))
	data := blktest.Pattern(0, 8, 9)
	mine := bytes.Clone(data)
	run := func(op blk.Op, bufs [][]byte) {
		b := &blk.Bio{Op: op, End: func(*blk.Bio) {}}
		b.SetBufs(bufs, 8)
		d.Submit(b)
		r.Sim.Run()
		r.Must(b.Status().Err())
	}
	run(blk.Write, [][]byte{mine[:100], mine[100:1111], mine[1111:]})
	if !bytes.Equal(data, mine) {
		t.Error("a write has changed its submitter's memory")
	}
	got := make([]byte, 4096)
	run(blk.Read, [][]byte{got[:1], got[1:2000], nil, got[2000:]})
	if !bytes.Equal(data, got) {
		t.Error("read something else through odd buffers")
	}
}

// TestMisaligned: a piece that is no whole sector of the cipher fails.
func TestMisaligned(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", table(1024, "aes-xts-plain64", key32, "0 a 0 1 sector_size:4096"))
	if l := d.Limits(); l.LogicalBlock != 4096 || l.PhysicalBlock != 4096 {
		t.Errorf("limits %+v", l)
	}
	r.Do(d, blk.Write, 4, 8, 1, blk.IOErr)
	r.Do(d, blk.Read, 8, 4, 1, blk.IOErr)
	r.Trace("a", "")
}

// TestDiscards are passed on only where they are allowed.
func TestDiscards(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", table(1024, "aes-xts-plain64", key32, "0 a 16"))
	if d.Limits().MaxDiscard != 0 {
		t.Error("discards are offered")
	}
	d = r.Device("y", table(1024, "aes-xts-plain64", key32, "0 b 16 1 allow_discards"))
	r.Do(d, blk.Discard, 8, 8, 0, blk.OK)
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	r.Trace("b", "discard 24+8\nflush 16+0\n")
}

// TestMemoryIsBounded: writes wait when 16 MiB are under way, in their order, and
// reads do not.
func TestMemoryIsBounded(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", table(16384, "aes-cbc-plain", key32, "0 a 0"))
	g := r.Gate("a")
	g.Shut()
	var ios []*targettest.IO
	for i := range uint64(160) {
		ios = append(ios, r.Submit(d, blk.Write, 0, i%64*256, 256, i))
	}
	if n := len(g.Held()); n != 128 {
		t.Fatalf("%d writes of 128 KiB are under way, want 128", n)
	}
	b := &blk.Bio{Op: blk.Write, Flags: blk.NoWait, End: func(*blk.Bio) {}}
	b.SetData(make([]byte, 512))
	d.Submit(b)
	r.Sim.Run()
	if b.Status() != blk.WouldBlock {
		t.Errorf("a write that must not wait: %v", b.Status())
	}
	r.Submit(d, blk.Read, 0, 0, 8, 0)
	if n := len(g.Held()); n != 129 {
		t.Errorf("%d requests below, want the read as well", n)
	}
	g.Fail(g.Held()[0].Index, blk.IOErr)
	r.Sim.Run()
	r.Done(ios[0], blk.IOErr)
	if n := len(g.Held()); n != 129 {
		t.Errorf("%d requests below, want one more write", n)
	}
	g.Open()
	r.Sim.Run()
	for _, x := range ios[1:] {
		r.Done(x, blk.OK)
	}
}

// atOnce reports whether a bio ends before Submit returns; wait runs what it waits for.
func atOnce(d *dm.Device, op blk.Op, sectors uint64) (at bool, wait func(r *targettest.Rig)) {
	b := &blk.Bio{Op: op, End: func(*blk.Bio) { at = true }}
	b.SetData(make([]byte, sectors*blk.SectorSize))
	d.Submit(b)
	return at, func(r *targettest.Rig) {
		r.Sim.Run()
		r.Must(b.Status().Err())
	}
}

// alone reports whether bios of so many bytes may be the longest that are not handed over, on a
// processor with instructions for all of the cipher, or some.
func alone(bytes, most uint64) bool { return bytes == most || bytes == min(8<<10, most) }

// TestShortBios: of a quick cipher nobody hands short bios to a worker.
func TestShortBios(t *testing.T) {
	for _, c := range []struct {
		cipher           string
		reading, writing uint64 // bytes, at most
	}{{"aes-xts-plain64", 64 << 10, 64 << 10}, {"aes-cbc-plain", 8 << 10, 8 << 10}, {"twofish-cbc-plain", 0, 0}} {
		spec, err := skcipher.Parse(c.cipher)
		reading, writing := spec.Alone()
		if err != nil || !alone(reading, c.reading) || !alone(writing, c.writing) || writing != c.writing && runtime.GOARCH == "amd64" {
			t.Errorf("%s: %d bytes read and %d written alone, %v", c.cipher, reading, writing, err)
		}
		r := targettest.New(t, types)
		d := r.Device("x", table(1024, c.cipher, key32, "0 a 0"))
		for op, most := range map[blk.Op]uint64{blk.Write: writing, blk.Read: reading} {
			most /= blk.SectorSize
			for _, sectors := range []uint64{most, most + 1} {
				if sectors == 0 {
					continue
				}
				at, wait := atOnce(d, op, sectors)
				if at != (sectors == most) {
					t.Errorf("%s, %v of %d sectors: ended before Submit has returned: %v", c.cipher, op, sectors, at)
				}
				wait(r)
			}
		}
	}
}

// TestErrorsPass: what failed below is not decrypted.
func TestErrorsPass(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", table(64, "aes-cbc-plain", key32, "0 a 0"))
	r.Gate("a").Shut()
	x := r.Submit(d, blk.Read, 0, 0, 8, 1)
	r.Gate("a").Fail(r.Gate("a").Held()[0].Index, blk.NoSpace)
	r.Sim.Run()
	r.Done(x, blk.NoSpace)
}

// TestSuspendWaits for what is being encrypted.
func TestSuspendWaits(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", table(64, "aes-cbc-plain", key32, "0 a 0"))
	r.Gate("a").Shut()
	x := r.Submit(d, blk.Write, 0, 0, 8, 1)
	done := false
	r.Sim.Go("suspend", func() { r.Suspend(d, false); done = true })
	r.Sim.Run()
	if done {
		t.Fatal("suspended with a write in flight")
	}
	r.Gate("a").Open()
	r.Sim.Run()
	r.Done(x, blk.OK)
	if !done {
		t.Fatal("the suspend still waits")
	}
}
