//go:build !amd64

package skcipher

func hasAESXTS() bool { return false }

func hasWide() bool { return false }

// newAESXTS returns nil: there is crypto/aes alone.
func newAESXTS(_, _ []byte) (mode, error) { return nil, nil }
