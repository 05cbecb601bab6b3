// Package secret keeps keys in memory of their own, which is overwritten when it is given
// back and, where the system lets an ordinary user do so, neither swapped out nor part of
// core dumps. Each key takes a page. Whatever uses a key, such as a cipher, may make copies
// in ordinary memory.
package secret

// Bytes is a secret. It must be closed. The zero value is an empty secret.
type Bytes struct {
	data   []byte
	mapped []byte // pages of their own; nil: ordinary memory
}

// Take moves p into a secret: p is overwritten.
func Take(p []byte) *Bytes {
	b := &Bytes{}
	if len(p) > 0 {
		b.mapped = protect(len(p))
	}
	if b.mapped != nil {
		b.data = b.mapped[:len(p):len(p)]
	} else {
		b.data = make([]byte, len(p))
	}
	copy(b.data, p)
	clear(p)
	return b
}

// Bytes returns the secret itself, which is valid until Close.
func (b *Bytes) Bytes() []byte { return b.data }

// Len is the length of the secret in bytes.
func (b *Bytes) Len() int { return len(b.data) }

// Close overwrites the secret. Closing twice is allowed.
func (b *Bytes) Close() {
	clear(b.data)
	if b.mapped != nil {
		release(b.mapped)
	}
	b.data, b.mapped = nil, nil
}

// String does not reveal the secret.
func (b *Bytes) String() string { return "a secret" }
