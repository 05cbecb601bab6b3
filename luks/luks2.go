package luks

import (
	"bytes"
	"cmp"
	"crypto/subtle"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

const (
	magic2     = "SKUL\xba\xbe" // of the second copy
	binarySize = 4096
	minSize2   = 16 << 10
	maxSize2   = 4 << 20
)

// luks2 is a header of version 2: the fields of its binary part, and its JSON, whose
// unknown parts are kept.
type luks2 struct {
	size      uint64 // of one copy
	seqID     uint64
	label     string
	subsystem string
	uuid      string
	doc       map[string]any
}

// read2 reads the newer one of the valid copies.
func read2(st store) (*luks2, *Header, error) {
	first, wrong := readCopy(st, 0, magic)
	size := uint64(minSize2)
	if first != nil {
		size = first.size
	}
	second, wrong2 := readCopy(st, size, magic2)
	for size := uint64(minSize2); first == nil && second == nil && size <= maxSize2; size *= 2 {
		second, _ = readCopy(st, size, magic2)
	}
	var l *luks2
	damaged := ""
	switch {
	case first == nil && second == nil:
		return nil, nil, fmt.Errorf("neither copy of the LUKS2 header is valid (%w; %w); restore it from a backup", wrong, wrong2)
	case first == nil:
		l, damaged = second, "the first copy of the header: "+wrong.Error()
	case second == nil:
		l, damaged = first, "the second copy of the header: "+wrong2.Error()
	case second.seqID > first.seqID:
		l, damaged = second, "the first copy of the header is older than the second"
	default:
		if l = first; second.seqID < first.seqID {
			damaged = "the second copy of the header is older than the first"
		}
	}
	h, err := l.header(st.size())
	if err != nil {
		return nil, nil, err
	}
	h.Damaged = damaged
	return l, h, nil
}

// readCopy reads the copy at an offset.
func readCopy(st store, off uint64, want string) (*luks2, error) {
	b, err := st.read(off, binarySize)
	if err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint64(b[8:])
	switch {
	case string(b[:6]) != want || binary.BigEndian.Uint16(b[6:]) != 2:
		return nil, errors.New("it is missing")
	case size < minSize2 || size > maxSize2 || size&(size-1) != 0 || binary.BigEndian.Uint64(b[256:]) != off || off != 0 && off != size:
		return nil, errors.New("its size or place is wrong")
	}
	all, err := st.read(off, size)
	if err != nil {
		return nil, err
	}
	return parseCopy(all)
}

// parseCopy verifies the checksum of a copy and decodes it.
func parseCopy(all []byte) (*luks2, error) {
	sum, err := checksum(all)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(sum, all[448:448+len(sum)]) != 1 {
		return nil, errors.New("its checksum is wrong")
	}
	l := &luks2{size: uint64(len(all)), seqID: binary.BigEndian.Uint64(all[16:]), label: cString(all[24:72]), uuid: cString(all[168:208]), subsystem: cString(all[208:256])}
	text, _, _ := bytes.Cut(all[binarySize:], []byte{0})
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&l.doc); err != nil {
		return nil, fmt.Errorf("its JSON is invalid: %w", err)
	}
	return l, nil
}

// checksum computes the checksum of a copy, with the checksum field taken as zeroes.
func checksum(all []byte) ([]byte, error) {
	h, err := findHash(cString(all[72:104]))
	if err != nil {
		return nil, err
	}
	d := h()
	d.Write(all[:448])
	d.Write(make([]byte, 64))
	d.Write(all[512:])
	return d.Sum(nil), nil
}

// marshal encodes l as the copy at an offset.
func (l *luks2) marshal(off uint64, salt []byte) ([]byte, error) {
	text, err := json.Marshal(l.doc)
	if err != nil {
		return nil, err
	}
	if uint64(len(text)) >= l.size-binarySize {
		return nil, fmt.Errorf("%d bytes of JSON do not fit into the header; remove key slots or tokens", len(text))
	}
	all := make([]byte, l.size)
	copy(all, magic)
	if off > 0 {
		copy(all, magic2)
	}
	binary.BigEndian.PutUint16(all[6:], 2)
	binary.BigEndian.PutUint64(all[8:], l.size)
	binary.BigEndian.PutUint64(all[16:], l.seqID)
	copy(all[24:71], l.label)
	copy(all[72:], "sha256")
	copy(all[104:168], salt)
	copy(all[168:207], l.uuid)
	copy(all[208:255], l.subsystem)
	binary.BigEndian.PutUint64(all[256:], off)
	copy(all[binarySize:], text)
	sum, err := checksum(all)
	copy(all[448:], sum)
	return all, err
}

// write writes both copies, one after the other, with a new sequence number.
func (l *luks2) write(st store, random func(int) ([]byte, error)) error {
	l.seqID++
	for _, off := range []uint64{0, l.size} {
		salt, err := random(64)
		if err != nil {
			return err
		}
		all, err := l.marshal(off, salt)
		if err != nil {
			return err
		}
		if err := st.write(off, all); err != nil {
			return err
		}
	}
	return nil
}

// The parts of a header's JSON that are needed here.
type (
	keyslot2 struct {
		Type     string `json:"type"`
		KeySize  int    `json:"key_size"`
		Priority *int   `json:"priority,omitempty"`
		AF       af2    `json:"af"`
		Area     area2  `json:"area"`
		KDF      KDF    `json:"kdf"`
	}
	af2 struct {
		Type    string `json:"type"`
		Stripes int    `json:"stripes"`
		Hash    string `json:"hash"`
	}
	area2 struct {
		Type       string `json:"type"`
		Offset     uint64 `json:"offset,string"`
		Size       uint64 `json:"size,string"`
		Encryption string `json:"encryption"`
		KeySize    int    `json:"key_size"`
	}
	segment2 struct {
		Type       string      `json:"type"`
		Offset     uint64      `json:"offset,string"`
		Size       string      `json:"size"`
		IVTweak    uint64      `json:"iv_tweak,string"`
		Encryption string      `json:"encryption"`
		SectorSize int         `json:"sector_size"`
		Flags      []string    `json:"flags,omitempty"`
		Integrity  *integrity2 `json:"integrity,omitempty"`
	}
	integrity2 struct {
		Type              string `json:"type"`
		JournalEncryption string `json:"journal_encryption"`
		JournalIntegrity  string `json:"journal_integrity"`
	}
	digest2 struct {
		Type       string   `json:"type"`
		Keyslots   []string `json:"keyslots"`
		Segments   []string `json:"segments"`
		Hash       string   `json:"hash"`
		Iterations uint64   `json:"iterations"`
		Salt       []byte   `json:"salt"`
		Digest     []byte   `json:"digest"`
	}
	config2 struct {
		JSONSize     uint64   `json:"json_size,string"`
		KeyslotsSize uint64   `json:"keyslots_size,string"`
		Flags        []string `json:"flags,omitempty"`
		Requirements struct {
			Mandatory []string `json:"mandatory"`
		} `json:"requirements"`
	}
)

// object returns an object of the document, or an empty one.
func (l *luks2) object(name string) map[string]any {
	m, ok := l.doc[name].(map[string]any)
	if !ok {
		m = map[string]any{}
		l.doc[name] = m
	}
	return m
}

// decode decodes a part of the document.
func decode[T any](v any, what string) (t T, err error) {
	text, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(text, &t)
	}
	if err != nil {
		return t, fmt.Errorf("%s in the header's JSON is invalid: %w", what, err)
	}
	return t, nil
}

// encode is the reverse of decode.
func encode(v any) (out map[string]any, err error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return out, d.Decode(&out)
}

// numbered returns the numeric names in an object, in ascending order.
func numbered(m map[string]any, most int) ([]int, error) {
	var ids []int
	for name := range m {
		var n int
		if _, err := fmt.Sscanf(name, "%d", &n); err != nil || fmt.Sprint(n) != name || n < 0 || n >= most {
			return nil, fmt.Errorf("the header's JSON has the number %q; it is damaged", name)
		}
		ids = append(ids, n)
	}
	slices.Sort(ids)
	return ids, nil
}

// header decodes l; device is the size of the device in bytes.
func (l *luks2) header(device uint64) (*Header, error) {
	h := &Header{Version: 2, UUID: l.uuid, Label: l.label, Subsystem: l.subsystem, SeqID: l.seqID, Tokens: map[int]string{}}
	c, err := decode[config2](l.object("config"), "config")
	if err != nil {
		return nil, err
	}
	h.Flags = c.Flags
	if must := strings.Join(c.Requirements.Mandatory, ", "); strings.Contains(must, "reencrypt") {
		return nil, errors.New("the disk is being re-encrypted; finish that with cryptsetup reencrypt first")
	} else if must != "" {
		return nil, fmt.Errorf("the header requires %q, which is not supported; use cryptsetup", must)
	}
	if err := l.segment(h); err != nil {
		return nil, err
	}
	if err := l.slots(h, c.KeyslotsSize, device); err != nil {
		return nil, err
	}
	return h, l.tokens(h)
}

// segment finds the single segment and its digest.
func (l *luks2) segment(h *Header) error {
	segments := l.object("segments")
	s, err := decode[segment2](segments["0"], "segment 0")
	switch {
	case err != nil:
		return err
	case len(segments) != 1:
		return fmt.Errorf("the disk has %d segments; it is being re-encrypted, or not supported: use cryptsetup", len(segments))
	case s.Type != "crypt":
		return fmt.Errorf("the data has the type %q and is not encrypted; use cryptsetup", s.Type)
	case s.Integrity != nil && (s.Integrity.JournalEncryption != noTags || s.Integrity.JournalIntegrity != noTags):
		return errors.New("the journal of the authenticated data has keys, which no version of cryptsetup makes; use the program that made it")
	case s.Integrity != nil && s.Integrity.Type == "":
		return errors.New("the data has tags of no type; the header is damaged")
	case s.SectorSize < 512 || s.SectorSize > 4096 || s.SectorSize&(s.SectorSize-1) != 0 || s.Offset%512 != 0:
		return fmt.Errorf("the data has sectors of %d bytes from byte %d on; the header is damaged", s.SectorSize, s.Offset)
	}
	h.Segment = Segment{Encryption: s.Encryption, Offset: s.Offset, IVOffset: s.IVTweak, SectorSize: s.SectorSize}
	if s.Integrity != nil {
		h.Segment.Integrity = s.Integrity.Type
	}
	if s.Size != "dynamic" {
		if _, err := fmt.Sscanf(s.Size, "%d", &h.Segment.Size); err != nil || h.Segment.Size == 0 || h.Segment.Size%512 != 0 {
			return fmt.Errorf("the segment has %q bytes; the header is damaged", s.Size)
		}
	}
	id, d, err := l.digest()
	if err == nil && d.Type != "pbkdf2" {
		err = fmt.Errorf("digest %s has the type %q, which is not supported", id, d.Type)
	}
	h.Digest = Digest{d.Hash, d.Iterations, d.Salt, d.Digest}
	return err
}

// digest returns the digest of segment 0.
func (l *luks2) digest() (id string, d digest2, err error) {
	for id, v := range l.object("digests") {
		if d, err = decode[digest2](v, "digest "+id); err != nil {
			return id, d, err
		}
		if slices.Contains(d.Segments, "0") {
			return id, d, nil
		}
	}
	return "", d, errors.New("no digest belongs to the data; the header is damaged")
}

// slots reads the slots with the key of segment 0; others are ignored.
func (l *luks2) slots(h *Header, room, device uint64) error {
	ids, err := numbered(l.object("keyslots"), maxSlots)
	if err != nil {
		return err
	}
	_, d, err := l.digest()
	if err != nil {
		return err
	}
	end := 2*l.size + room
	if end < room || end > device {
		return errors.New("the key slots end beyond the device; is it truncated?")
	}
	for _, id := range ids {
		k, err := decode[keyslot2](l.object("keyslots")[fmt.Sprint(id)], fmt.Sprintf("key slot %d", id))
		switch {
		case err != nil:
			return err
		case k.Area.Offset < 2*l.size || k.Area.Offset > end || k.Area.Size > end-k.Area.Offset:
			return fmt.Errorf("key slot %d lies outside the area of key slots; the header is damaged", id)
		case k.Type != "luks2" || k.Area.Type != "raw" || k.AF.Type != "luks1" || !slices.Contains(d.Keyslots, fmt.Sprint(id)):
			continue
		}
		s := Slot{ID: id, KeySize: k.KeySize, KDF: k.KDF, Stripes: k.AF.Stripes, Hash: k.AF.Hash, Priority: 1,
			Area: Area{k.Area.Offset, k.Area.Size, k.Area.Encryption, k.Area.KeySize}}
		if k.Priority != nil {
			s.Priority = *k.Priority
		}
		h.Slots = append(h.Slots, s)
		h.Segment.KeySize = k.KeySize
	}
	return l.overlaps()
}

// areas returns the areas of all key slots in ascending order.
func (l *luks2) areas() (as []area2, err error) {
	for id, v := range l.object("keyslots") {
		k, err := decode[keyslot2](v, "key slot "+id)
		if err != nil {
			return nil, err
		}
		as = append(as, k.Area)
	}
	slices.SortFunc(as, func(a, b area2) int { return cmp.Compare(a.Offset, b.Offset) })
	return as, nil
}

func (l *luks2) overlaps() error {
	as, err := l.areas()
	for i := 1; i < len(as); i++ {
		if as[i-1].Offset+as[i-1].Size > as[i].Offset {
			return errors.New("key slots overlap; the header is damaged")
		}
	}
	return err
}

func (l *luks2) tokens(h *Header) error {
	ids, err := numbered(l.object("tokens"), maxSlots)
	for _, id := range ids {
		text, err := json.Marshal(l.object("tokens")[fmt.Sprint(id)])
		if err != nil {
			return err
		}
		h.Tokens[id] = string(text)
	}
	return err
}
