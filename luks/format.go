package luks

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"udm/blk"
	"udm/env"
	"udm/internal/secret"
)

// Format describes a new disk. Comments give the default, which the zero value
// selects.
type Format struct {
	Version    int    // 2
	Encryption string // aes-xts-plain64
	KeySize    int    // bytes of the cipher's key: 64
	// Integrity authenticates sectors (version 2): "hmac(sha256)" and so on, "aead",
	// "poly1305", "none"; "": not. See [Container.FormatIntegrity].
	Integrity  string
	Hash       string // sha256
	SectorSize int    // bytes: 512
	UUID       string // a random one
	Label      string // version 2
	Subsystem  string // version 2
	// Offset is the offset of the data in bytes; 0: after the header, at 16 MiB or,
	// in version 1, 2 MiB. With a detached header the data starts at 0.
	Offset           uint64
	Detached         bool
	KDF              KDF    // of the first slot
	DigestIterations uint64 // of pbkdf2 over the volume key: 200000
}

const (
	keyslotsSize2 = 16<<20 - 2*minSize2
	align1        = 1 << 20
)

// complete fills in the defaults and checks the rest.
func (f *Format) complete(o Options) error {
	setDefault(&f.Version, 2)
	setDefault(&f.Encryption, "aes-xts-plain64")
	setDefault(&f.KeySize, 64)
	setDefault(&f.Hash, "sha256")
	setDefault(&f.SectorSize, 512)
	setDefault(&f.DigestIterations, 200000)
	if f.KDF.Type == "" {
		f.KDF = DefaultKDF(f.Version)
	}
	if f.UUID == "" {
		b, err := o.random(16)
		if err != nil {
			return err
		}
		b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
		x := hex.EncodeToString(b)
		f.UUID = x[:8] + "-" + x[8:12] + "-" + x[12:16] + "-" + x[16:20] + "-" + x[20:]
	}
	if f.Version == 1 {
		f.KDF.Hash = f.Hash
	}
	return f.check()
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

func (f *Format) check() error {
	s := Segment{Encryption: f.Encryption, Integrity: f.Integrity, KeySize: f.volumeKey(), SectorSize: 512}
	if err := s.check(); err != nil {
		return err
	}
	if _, err := findHash(f.Hash); err != nil {
		return err
	}
	switch {
	case strings.HasSuffix(f.Encryption, "-cbc-random"):
		return errors.New("cryptsetup has no place for random vectors of cbc; use aes-xts-random")
	case f.Version != 1 && f.Version != 2:
		return fmt.Errorf("there is no version %d of LUKS; use 1 or 2", f.Version)
	case f.SectorSize < 512 || f.SectorSize > 4096 || f.SectorSize&(f.SectorSize-1) != 0:
		return fmt.Errorf("sectors of %d bytes are not possible; use 512, 1024, 2048 or 4096", f.SectorSize)
	case f.Version == 1 && (f.Integrity != "" || f.SectorSize != 512 || f.Label != "" || f.Subsystem != "" || f.KDF.Type != "pbkdf2"):
		return errors.New("version 1 supports no integrity and no labels, only sectors of 512 bytes and only pbkdf2; use version 2")
	case len(f.Label) > 47 || len(f.Subsystem) > 47 || len(f.UUID) > 39 || len(f.Encryption) > 60:
		return errors.New("a label, UUID or cipher is too long for the header")
	case f.Offset%4096 != 0:
		return errors.New("the offset of the data is not a multiple of 4096 bytes")
	}
	return nil
}

// Create writes a header to dev, with a new volume key that the passphrase opens. The
// present content of the disk is lost.
func Create(e env.Env, dev blk.Device, f Format, passphrase []byte, o Options) (*Container, error) {
	if err := f.complete(o); err != nil {
		return nil, err
	}
	c := &Container{store: store{e, dev}, options: o}
	fresh, err := o.random(f.volumeKey())
	if err != nil {
		return nil, err
	}
	key := &Key{secret: secret.Take(fresh)}
	defer key.Close()
	d := Digest{Hash: f.Hash, Iterations: f.DigestIterations}
	if d.Salt, err = o.random(saltSize1); err != nil {
		return nil, err
	}
	if f.Version == 1 {
		err = c.create1(&f, &d, key)
	} else {
		err = c.create2(&f, &d, key)
	}
	if err != nil {
		return nil, err
	}
	if err := c.makeRoom(); err != nil {
		return nil, err
	}
	_, err = c.AddKey(key, passphrase, f.KDF)
	return c, err
}

// volumeKey is the size of the volume key in bytes: that of the cipher and that of the MAC.
func (f *Format) volumeKey() int {
	s := Segment{Encryption: f.Encryption, Integrity: f.Integrity}
	spec, _ := s.spec()
	return f.KeySize + spec.MACSize()
}

// makeRoom checks the length of the device and invalidates old headers. The new
// header is only in memory until its first slot is written.
func (c *Container) makeRoom() error {
	end := c.end()
	if size := c.store.size(); end > size || !c.detached() && c.Header.Segment.Offset >= size {
		return fmt.Errorf("%v is too short for a header of %d bytes and data", c.store.dev, max(end, c.Header.Segment.Offset))
	}
	for off := uint64(minSize2); off <= maxSize2 && off+binarySize <= end; off *= 2 {
		if err := c.store.write(off, make([]byte, binarySize)); err != nil {
			return err
		}
	}
	return c.store.write(0, make([]byte, binarySize))
}

// end is the end of the header with all key slots, in bytes.
func (c *Container) end() uint64 {
	if c.v2 != nil {
		return 2*c.v2.size + c.keyslotsSize()
	}
	last := c.v1.slot(slots1-1, c.Header)
	return roundUp(last.Area.Offset+last.Area.Size, areaUnit)
}

func (c *Container) keyslotsSize() uint64 {
	cfg, _ := decode[config2](c.v2.object("config"), "config") // this cannot fail: it has been read
	return cfg.KeyslotsSize
}

func (c *Container) detached() bool { return c.Header.Segment.Offset < c.end() }

// create1 creates a header of version 1 in memory.
func (c *Container) create1(f *Format, d *Digest, k *Key) (err error) {
	cipher, mode, _ := cut(f.Encryption)
	if len(cipher) > 31 || len(mode) > 31 || cipher == "" || mode == "" {
		return fmt.Errorf("the cipher %q does not fit into a header of version 1", f.Encryption)
	}
	if d.Digest, err = d.derive(k.secret.Bytes(), digestSize1, c.options.limits()); err != nil {
		return err
	}
	l := &luks1{}
	copy(l.raw[:], magic+"\x00\x01")
	copy(l.raw[8:], cipher)
	copy(l.raw[40:], mode)
	copy(l.raw[72:], f.Hash)
	l.put(108, uint32(f.KeySize))
	copy(l.raw[112:], d.Digest)
	copy(l.raw[132:], d.Salt)
	l.put(164, uint32(d.Iterations))
	copy(l.raw[168:], f.UUID)
	at := uint64(areaUnit)
	for i := range slots1 {
		l.set(i, nil)
		l.put(slotAt+i*slotSize+40, uint32(at/512))
		l.put(slotAt+i*slotSize+44, stripes)
		at = roundUp(at+uint64(f.KeySize*stripes), areaUnit)
	}
	switch {
	case f.Offset > 0:
		l.put(104, uint32(f.Offset/512))
	case !f.Detached:
		l.put(104, uint32(roundUp(at, align1)/512))
	}
	if data := uint64(l.u32(104)) * 512; !f.Detached && data < at {
		return fmt.Errorf("the data cannot start at byte %d: the header takes %d bytes", data, at)
	}
	c.v1 = l
	c.Header, err = l.header(c.store.size())
	return err
}

// cut splits CIPHER-MODE.
func cut(encryption string) (cipher, mode string, ok bool) {
	for i := range encryption {
		if encryption[i] == '-' {
			return encryption[:i], encryption[i+1:], true
		}
	}
	return encryption, "", false
}

func (f *Format) integrity() *integrity2 {
	if f.Integrity == "" {
		return nil
	}
	return &integrity2{f.Integrity, noTags, noTags}
}

// create2 creates a header of version 2 in memory.
func (c *Container) create2(f *Format, d *Digest, k *Key) (err error) {
	h, err := findHash(f.Hash)
	if err != nil {
		return err
	}
	if d.Digest, err = d.derive(k.secret.Bytes(), min(h().Size(), 64), c.options.limits()); err != nil {
		return err
	}
	room := uint64(keyslotsSize2)
	switch {
	case f.Offset == 0 && !f.Detached:
		f.Offset = 2*minSize2 + room
	case !f.Detached && f.Offset <= 2*minSize2:
		return fmt.Errorf("the data cannot start at byte %d: the header is larger", f.Offset)
	case !f.Detached:
		room = min(room, f.Offset-2*minSize2)
	}
	cfg := config2{JSONSize: minSize2 - binarySize, KeyslotsSize: room}
	doc := map[string]any{
		"keyslots": map[string]any{}, "tokens": map[string]any{},
		"segments": map[string]any{"0": segment2{Type: "crypt", Offset: f.Offset, Size: "dynamic", Encryption: f.Encryption, SectorSize: f.SectorSize, Integrity: f.integrity()}},
		"digests":  map[string]any{"0": digest2{"pbkdf2", []string{}, []string{"0"}, d.Hash, d.Iterations, d.Salt, d.Digest}},
		"config":   map[string]any{"json_size": fmt.Sprint(cfg.JSONSize), "keyslots_size": fmt.Sprint(cfg.KeyslotsSize)},
	}
	if doc, err = encode(doc); err != nil {
		return err
	}
	c.v2 = &luks2{size: minSize2, label: f.Label, subsystem: f.Subsystem, uuid: f.UUID, doc: doc}
	c.Header, err = c.v2.header(c.store.size())
	return err
}
