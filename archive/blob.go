package archive

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/crypto/chacha20poly1305"
)

// ID names a chunk: the SHA-256 of its content, or with a key its HMAC-SHA256, which tells
// nothing of it to who has no key.
type ID [32]byte

// How the bytes of a blob are stored.
const (
	plain      = 0
	compressed = 1
)

// codec turns contents into blobs and back. A blob is a byte that says how it is stored, and
// the content; with a key, a nonce of 24 bytes and all that by XChaCha20-Poly1305, bound to
// what the blob is for.
type codec struct {
	nameKey []byte      // nil: no key
	aead    cipher.AEAD // nil: no key
	zip     *zstd.Encoder
	unzip   *zstd.Decoder
}

// maxBlob bounds what is decompressed.
const maxBlob = 1 << 30

func newCodec(key, salt []byte) (*codec, error) {
	zip, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		return nil, err
	}
	unzip, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(4), zstd.WithDecoderMaxMemory(maxBlob))
	if err != nil {
		return nil, err
	}
	c := &codec{zip: zip, unzip: unzip}
	if key == nil {
		return c, nil
	}
	if c.nameKey, err = hkdf.Key(sha256.New, key, salt, "udm archive names", 32); err != nil {
		return nil, err
	}
	secret, err := hkdf.Key(sha256.New, key, salt, "udm archive contents", chacha20poly1305.KeySize)
	if err == nil {
		c.aead, err = chacha20poly1305.NewX(secret)
	}
	return c, err
}

// id names a content.
func (c *codec) id(p []byte) (id ID) {
	if c.nameKey == nil {
		return sha256.Sum256(p)
	}
	h := hmac.New(sha256.New, c.nameKey)
	h.Write(p)
	h.Sum(id[:0])
	return id
}

// seal makes a blob for a purpose.
func (c *codec) seal(purpose string, p []byte) []byte {
	b := c.zip.EncodeAll(p, []byte{compressed})
	if len(b) > len(p) {
		b = append([]byte{plain}, p...)
	}
	if c.aead == nil {
		return b
	}
	nonce := make([]byte, c.aead.NonceSize(), c.aead.NonceSize()+len(b)+c.aead.Overhead())
	rand.Read(nonce) // never fails
	return c.aead.Seal(nonce, nonce, b, []byte(purpose))
}

var errBlob = errors.New("it is damaged")

// open undoes seal.
func (c *codec) open(purpose string, b []byte) (_ []byte, err error) {
	if c.aead != nil {
		n := c.aead.NonceSize()
		if len(b) < n {
			return nil, errBlob
		}
		if b, err = c.aead.Open(nil, b[:n], b[n:], []byte(purpose)); err != nil {
			return nil, fmt.Errorf("%w, or encrypted with another key", errBlob)
		}
	}
	switch {
	case len(b) > 0 && b[0] == plain:
		return b[1:], nil
	case len(b) > 0 && b[0] == compressed:
		if p, err := c.unzip.DecodeAll(b[1:], nil); err == nil {
			return p, nil
		}
	}
	return nil, errBlob
}

// chunk opens a chunk, whose name must fit.
func (c *codec) chunk(id ID, b []byte) ([]byte, error) {
	p, err := c.open("chunk "+string(id[:]), b)
	if err == nil && c.id(p) != id {
		err = errBlob
	}
	return p, err
}

func (c *codec) sealChunk(id ID, p []byte) []byte { return c.seal("chunk "+string(id[:]), p) }

// check is what tells a wrong key.
func (c *codec) check() string {
	if c.nameKey == nil {
		return ""
	}
	id := c.id([]byte("udm archive check"))
	return fmt.Sprintf("%x", id[:8])
}
