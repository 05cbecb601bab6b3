package integrity

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"syscall"

	"udm/blk"
	"udm/dm"
)

// seal protects sections of the journal on disk: journal_mac adds a MAC of the entries'
// sectors, journal_crypt then encrypts the whole section.
type seal struct {
	newMAC func() hash.Hash // nil: no MAC
	block  cipher.Block     // nil: not encrypted
	stream bool             // encrypted by ctr(aes), else by cbc(aes)
}

const (
	macOffset  = sectorSpace - macPart // in each sector of entries
	macPart    = 8                     // bytes
	maxSealed  = entrySectors * macPart
	journalCTR = "ctr(aes)"
	journalCBC = "cbc(aes)"
)

func newSeal(l *Line) (s seal, err error) {
	if l.JournalMAC.Name != "" {
		if s.newMAC, err = newHash("journal mac", l.JournalMAC.Name, l.JournalMAC.key()); err != nil {
			return s, err
		}
	}
	if c := l.JournalCrypt; c.Name != "" {
		if c.Name != journalCTR && c.Name != journalCBC {
			return s, dm.Because(dm.Errorf(syscall.ENOENT, "udm has no journal cipher %q; it has %s and %s", c.Name, journalCBC, journalCTR), "Invalid journal cipher")
		}
		if s.block, err = aes.NewCipher(c.key()); err != nil {
			return s, dm.Errorf(syscall.EINVAL, "Error setting encryption key")
		}
		s.stream = c.Name == journalCTR
	}
	return s, nil
}

// key returns the key of a valid algorithm.
func (a Algorithm) key() []byte {
	key, _ := hex.DecodeString(a.Key)
	return key
}

// section returns the MAC of a section, divided among its sectors of entries.
func (s *seal) section(sb *Superblock, l *layout, at uint64, image []byte) []byte {
	h := s.newMAC()
	if sb.Flags&flagHMAC != 0 {
		h.Write(sb.Salt[:])
		h.Write(binary.LittleEndian.AppendUint64(nil, at))
	}
	for e := range l.sectionEntries {
		h.Write(l.image(image, e).entry[:8])
	}
	return append(h.Sum(nil), make([]byte, maxSealed)...)[:maxSealed]
}

// superblock stores the MAC of an encoded superblock at the end of its first sector, if it has
// one.
func (s *seal) superblock(p []byte) {
	if want, at := s.superblockMAC(p); want != nil {
		copy(at, want)
	}
}

// superblockDamaged reports whether an encoded superblock does not match its MAC.
func (s *seal) superblockDamaged(p []byte) bool {
	want, at := s.superblockMAC(p)
	return !bytes.Equal(want, at)
}

// superblockMAC computes the MAC of an encoded superblock and returns its place as well. Only
// superblocks with flagHMAC have one.
func (s *seal) superblockMAC(p []byte) (mac, place []byte) {
	if s.newMAC == nil || decodeSuperblock(p).Flags&flagHMAC == 0 {
		return nil, nil
	}
	h := s.newMAC()
	at := blk.SectorSize - h.Size()
	h.Write(p[:at])
	return h.Sum(nil), p[at:blk.SectorSize]
}

// commitIDs returns the bases of the commit ids, by sequence number. With a stream cipher they
// are encrypted by what follows the journal in the stream.
func (s *seal) commitIDs(l *layout) (ids [commitSeqs]uint64) {
	p := make([]byte, commitSeqs*commitIDSize)
	for i := range ids {
		binary.LittleEndian.PutUint64(p[i*commitIDSize:], firstCommitID*uint64(i+1))
	}
	if s.block != nil && s.stream {
		const page = 8 // sectors
		s.xor(p, (l.sections*l.sectionSectors+page-1)/page*page)
	}
	for i := range ids {
		ids[i] = binary.LittleEndian.Uint64(p[i*commitIDSize:])
		for j := 0; j < i; j++ {
			if ids[j] == ids[i] {
				ids[i]++
				j = -1
			}
		}
	}
	return ids
}

// xor encrypts or decrypts p, which is so many sectors from the start of the journal.
func (s *seal) xor(p []byte, sector uint64) {
	iv := make([]byte, aes.BlockSize)
	binary.BigEndian.PutUint64(iv[8:], sector*(blk.SectorSize/aes.BlockSize))
	cipher.NewCTR(s.block, iv).XORKeyStream(p, p)
}

// vector returns the initialization vector of a section.
func (s *seal) vector(at uint64) []byte {
	iv := make([]byte, aes.BlockSize)
	binary.LittleEndian.PutUint32(iv, uint32(at))
	s.block.Encrypt(iv, iv)
	return iv
}

func (s *seal) encrypt(p []byte, l *layout, at uint64) {
	if s.stream {
		s.xor(p, at*l.sectionSectors)
		return
	}
	cipher.NewCBCEncrypter(s.block, s.vector(at)).CryptBlocks(p, p)
}

func (s *seal) decrypt(p []byte, l *layout, at uint64) {
	if s.stream {
		s.xor(p, at*l.sectionSectors)
		return
	}
	cipher.NewCBCDecrypter(s.block, s.vector(at)).CryptBlocks(p, p)
}

// store writes a section to disk with its MAC, encrypted. Readers of its entries and data may
// run meanwhile.
func (j *journal) store(at uint64, image []byte) error {
	s := &j.seal
	if s.newMAC != nil {
		mac := s.section(j.sb, j.layout, at, image)
		for n := range entrySectors {
			copy(image[n*blk.SectorSize+macOffset:][:macPart], mac[n*macPart:])
		}
	}
	if s.block != nil {
		image = bytes.Clone(image)
		s.encrypt(image, j.layout, at)
	}
	return blk.WriteSectors(j.env, j.meta, image, j.start+j.layout.section(at, 0), 0)
}

// read reads a section and decrypts it.
func (j *journal) read(at uint64) ([]byte, error) {
	p := make([]byte, j.layout.sectionSectors*blk.SectorSize)
	err := blk.ReadSectors(j.env, j.meta, p, j.start+j.layout.section(at, 0))
	if err == nil && j.seal.block != nil {
		j.seal.decrypt(p, j.layout, at)
	}
	return p, err
}

// forged reports whether a section does not match its MAC.
func (j *journal) forged(at uint64, image []byte) bool {
	if j.seal.newMAC == nil {
		return false
	}
	mac := j.seal.section(j.sb, j.layout, at, image)
	for n := range entrySectors {
		if !bytes.Equal(mac[n*macPart:][:macPart], image[n*blk.SectorSize+macOffset:][:macPart]) {
			return true
		}
	}
	return false
}
