package skcipher

import (
	"crypto/aes"
	"testing"

	barexts "golang.org/x/crypto/xts"
)

// BenchmarkXTS is 64 KiB of sectors by this package, and by golang.org/x/crypto/xts.
func BenchmarkXTS(b *testing.B) {
	key := make([]byte, 64)
	p := make([]byte, 64<<10)
	s, err := Parse("aes-xts-plain64")
	if err != nil {
		b.Fatal(err)
	}
	c, err := s.New(key, 512, false)
	if err != nil {
		b.Fatal(err)
	}
	x, err := barexts.NewCipher(aes.NewCipher, key)
	if err != nil {
		b.Fatal(err)
	}
	for _, m := range []struct {
		name string
		run  func(sector uint64)
	}{
		{"encrypt", func(n uint64) { c.Encrypt(p, n) }},
		{"decrypt", func(n uint64) { c.Decrypt(p, n) }},
		{"bare-encrypt", func(n uint64) {
			for i := uint64(0); i < 128; i++ {
				q := p[i*512 : (i+1)*512]
				x.Encrypt(q, q, n+i)
			}
		}},
		{"bare-decrypt", func(n uint64) {
			for i := uint64(0); i < 128; i++ {
				q := p[i*512 : (i+1)*512]
				x.Decrypt(q, q, n+i)
			}
		}},
	} {
		b.Run(m.name, func(b *testing.B) {
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for i := range b.N {
				m.run(uint64(i) * 128)
			}
		})
	}
}
