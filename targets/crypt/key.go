package crypt

import (
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"syscall"

	"udm/dm"
	"udm/internal/secret"
	"udm/targets/crypt/skcipher"
)

// key is a key in force. One that was wiped, or has a name, is all zeroes.
type key struct {
	bytes *secret.Bytes
	name  string // ":SIZE:TYPE:DESCRIPTION", when it came from the store
}

// word is the key as a table shows it.
func (k *key) word() string {
	switch {
	case k.name != "":
		return k.name
	case k.bytes.Len() == 0:
		return noKey
	}
	return hex.EncodeToString(k.bytes.Bytes())
}

const noKey = "-"

// keySize is how many bytes the key has that a table or a message gives: half of
// the digits, or what a name of the store says.
func keySize(word string) (int, error) {
	if !strings.HasPrefix(word, ":") {
		return len(word) / 2, nil
	}
	text, _, ok := strings.Cut(word[1:], ":")
	n, err := strconv.ParseUint(text, 10, 31)
	if !ok || err != nil {
		return 0, errors.New("size")
	}
	return int(n), nil
}

// decode is the key that a word gives, or names in the store. No error tells what
// the word is.
func (c *crypt) decode(word string) (key, error) {
	size, err := keySize(word)
	switch {
	case err != nil:
		return key{}, badKey()
	case !strings.HasPrefix(word, ":"):
		b, err := decodeHex(word)
		return key{bytes: secret.Take(b)}, err
	case c.keys == nil:
		return key{}, dm.Errorf(syscall.EINVAL, "the table names a key, and this program has no key store; give the key in hexadecimal digits")
	}
	_, rest, _ := strings.Cut(word[1:], ":")
	kind, description, _ := strings.Cut(rest, ":")
	k, err := c.keys.Key(kind, description)
	if err == nil && len(k) != size {
		clear(k)
		err = dm.Errorf(syscall.EINVAL, "the key in the store has another size than the table says")
	}
	return key{secret.Take(k), word}, err
}

// decodeHex reads pairs of digits, or noKey; a digit that is left over means nothing.
func decodeHex(word string) ([]byte, error) {
	b, err := hex.DecodeString(word[:len(word)/2*2])
	if err != nil || len(b) == 0 && word != noKey {
		clear(b)
		return nil, badKey()
	}
	return b, nil
}

func badKey() error {
	return dm.Errorf(syscall.EINVAL, "this is no key; use hexadecimal digits, or - for none")
}

// set puts the key of a word in force.
func (c *crypt) set(word string) error {
	k, err := c.decode(word)
	if err != nil {
		return err
	}
	return c.install(k)
}

func (c *crypt) install(k key) error {
	cipher, err := c.newCipher(k)
	if err != nil {
		k.bytes.Close()
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.key.bytes != nil {
		c.key.bytes.Close()
	}
	if k.name != "" {
		clear(k.bytes.Bytes()) // the table shows the name
	}
	c.key = k
	c.use(cipher)
	return nil
}

func (c *crypt) newCipher(k key) (*skcipher.Sectors, error) {
	return c.spec.New(k.bytes.Bytes(), c.line.SectorSize, c.line.IVLargeSectors)
}

// wipe forgets the key.
func (c *crypt) wipe() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.key.bytes.Bytes())
	c.key.name = ""
	c.use(nil)
}

// use puts a cipher in force, nil for none. No bio is on its way then.
func (c *crypt) use(cipher *skcipher.Sectors) {
	if old := c.cipher.Swap(cipher); old != nil {
		old.Close()
	}
}

// Message takes "key set KEY" and "key wipe", only while the device is suspended.
func (c *crypt) Message(args []string) (string, error) {
	if len(args) < 2 || !strings.EqualFold(args[0], "key") {
		return "", unrecognised()
	}
	if !c.isSuspended() {
		return "", dm.Errorf(syscall.EINVAL, "not suspended during key manipulation; suspend the device first")
	}
	switch {
	case len(args) == 3 && strings.EqualFold(args[1], "set"):
		return "", c.replace(args[2])
	case len(args) == 2 && strings.EqualFold(args[1], "wipe"):
		c.wipe()
		return "", nil
	}
	return "", unrecognised()
}

func unrecognised() error { return dm.Errorf(syscall.EINVAL, "unrecognised message received.") }

func (c *crypt) isSuspended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.suspended
}

// replace puts a key of the same size in force.
func (c *crypt) replace(word string) error {
	c.mu.Lock()
	size := c.key.bytes.Len()
	c.mu.Unlock()
	if n, err := keySize(word); err != nil || n != size {
		return dm.Errorf(syscall.EINVAL, "the key has another size than the one of the table; give one of %d bytes", size)
	}
	return c.set(word)
}
