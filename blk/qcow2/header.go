package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"udm/blk"
)

// The header, big-endian:
//
//	0 magic:32  4 version:32  8 backing file's name:64  16 its length:32
//	20 cluster bits:32  24 size:64  32 encryption:32  36 L1 entries:32  40 L1 table:64
//	72 incompatible:64  80 compatible:64  88 autoclear:64  100 header length:32
//	104 compression:8                                           from 72: version 3
//
// followed by extensions: type:32, length:32, data up to a multiple of 8.
const (
	magic      = 0x514649fb // "QFI" 0xfb
	headerSize = 72
	header3    = 104

	extEnd           = 0
	extBackingFormat = 0xe2792aca
	extDataFile      = 0x44415441
	extFeatureNames  = 0x6803f857
)

// Incompatible features. The first two do not matter to a reader: reference counts
// may be wrong, or a writer found the image corrupt.
const (
	featDirty = 1 << iota
	featCorrupt
	featDataFile
	featCompression
	featExtendedL2

	featKnown = 1<<5 - 1
)

const (
	maxL1     = 32 << 20 / 8 // entries, as in qemu
	maxName   = 1023
	noFormat  = ""
	formatRaw = "raw"
)

var be = binary.BigEndian

// header is the decoded header of an image.
type header struct {
	version     uint32
	size        uint64 // bytes
	bits        uint   // of a cluster
	l1, l1Size  uint64 // offset and entries
	features    uint64
	zstd        bool
	backing     string
	format      string // of the backing file; noFormat
	dataFile    string
	featureName string // name of the first unknown feature
}

func isQcow2(f *file) bool {
	var p [4]byte
	_, err := f.ReadAt(p[:], 0)
	return err == nil && be.Uint32(p[:]) == magic
}

// readHeader reads the header, its extensions and the name of the backing file, which
// are all in the first cluster.
func readHeader(f *file) (*header, error) {
	p := make([]byte, min(f.size, 1<<21))
	if err := readFull(f, p, 0); err != nil {
		return nil, err
	}
	if len(p) < headerSize || be.Uint32(p) != magic {
		return nil, errors.New("it is not a qcow2 image")
	}
	h := &header{version: be.Uint32(p[4:]), size: be.Uint64(p[24:]), bits: uint(be.Uint32(p[20:])), l1Size: uint64(be.Uint32(p[36:])), l1: be.Uint64(p[40:])}
	if h.version != 2 && h.version != 3 {
		return nil, fmt.Errorf("version %d of qcow2 is not supported; convert it with qemu-img", h.version)
	}
	if h.bits < 9 || h.bits > 21 {
		return nil, fmt.Errorf("it has clusters of 2^%d bytes, which qcow2 does not allow", h.bits)
	}
	p = p[:min(len(p), 1<<h.bits)]
	if crypt := be.Uint32(p[32:]); crypt != 0 {
		return nil, errors.New("it is encrypted, which is not supported; decrypt it with qemu-img convert")
	}
	end := uint64(headerSize)
	if h.version == 3 {
		var err error
		if end, err = h.read3(p); err != nil {
			return nil, err
		}
	}
	if err := h.extensions(p, end); err != nil {
		return nil, err
	}
	if off, n := be.Uint64(p[8:]), uint64(be.Uint32(p[16:])); off != 0 {
		if n > maxName || off > uint64(len(p)) || n > uint64(len(p))-off {
			return nil, errors.New("the name of its backing file is not in its first cluster")
		}
		h.backing = string(p[off : off+n])
	}
	return h, h.check()
}

// read3 reads the fields added in version 3, and returns the end of the header.
func (h *header) read3(p []byte) (uint64, error) {
	if len(p) < header3 {
		return 0, errors.New("its header is truncated")
	}
	h.features = be.Uint64(p[72:])
	n := uint64(be.Uint32(p[100:]))
	if n < header3 || n > uint64(len(p)) {
		return 0, fmt.Errorf("its header says that it has %d bytes", n)
	}
	if n > header3 && h.features&featCompression != 0 {
		switch p[104] {
		case 0:
		case 1:
			h.zstd = true
		default:
			return 0, fmt.Errorf("its clusters are compressed by the unknown method %d", p[104])
		}
	}
	return n, nil
}

func (h *header) extensions(p []byte, at uint64) error {
	for at+8 <= uint64(len(p)) {
		kind, n := be.Uint32(p[at:]), uint64(be.Uint32(p[at+4:]))
		if at += 8; n > uint64(len(p))-at {
			return errors.New("an extension of its header goes beyond the first cluster")
		}
		content := p[at : at+n]
		switch kind {
		case extEnd:
			return nil
		case extBackingFormat:
			h.format = string(content)
		case extDataFile:
			h.dataFile = string(content)
		case extFeatureNames:
			h.nameOf(content)
		}
		at += (n + 7) &^ 7
	}
	return nil
}

// nameOf finds the name of the first unknown feature. Entries are kind:8 (0:
// incompatible), bit:8, and 46 bytes of name.
func (h *header) nameOf(p []byte) {
	for ; len(p) >= 48; p = p[48:] {
		if unknown := h.features &^ featKnown; p[0] == 0 && p[1] < 64 && unknown&-unknown == 1<<p[1] {
			h.featureName = strings.TrimRight(string(p[2:48]), "\x00")
		}
	}
}

// check refuses images that cannot be read.
func (h *header) check() error {
	entry := uint64(8)
	if h.features&featExtendedL2 != 0 {
		entry = 16
		if h.bits < 14 {
			return errors.New("it has extended L2 entries and clusters of less than 16 KiB")
		}
	}
	perL1 := uint64(1) << (2 * h.bits) / entry // bytes below an entry of L1
	switch unknown := h.features &^ featKnown; {
	case unknown != 0:
		return fmt.Errorf("it has features that are not supported (%#x %s); convert it with qemu-img", unknown, h.featureName)
	case h.size > 1<<62:
		return fmt.Errorf("it has %d bytes, which is too much", h.size)
	case h.l1%(1<<h.bits) != 0 || h.l1 >= 1<<56:
		return errors.New("its L1 table is not at the beginning of a cluster")
	case h.l1Size > maxL1 || (h.size+perL1-1)/perL1 > h.l1Size:
		return fmt.Errorf("its L1 table of %d entries does not fit its size", h.l1Size)
	case h.features&featDataFile != 0 && h.dataFile == "":
		return errors.New("its data is in another file, which it does not name")
	}
	return nil
}

// sectorsUp rounds bytes up to sectors.
func sectorsUp(bytes uint64) uint64 {
	return (bytes + blk.SectorSize - 1) &^ (blk.SectorSize - 1)
}
