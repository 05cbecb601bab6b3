package skcipher

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"udm/dm"
)

// Spec says how sectors are encrypted, all but the key.
type Spec struct {
	Cipher string // "aes", "twofish", "cipher_null"
	Mode   string // "xts", "cbc", "ecb"
	Keys   int    // how many keys take turns, a power of two
	IV     string // "plain64" and so on; "" for modes without one
	Hash   string // of essiv
}

// Parse understands a specification. Its errors have the kernel's words in front.
func Parse(text string) (s Spec, err error) {
	if rest, ok := strings.CutPrefix(text, "capi:"); ok {
		s, err = parseAPI(rest)
	} else {
		s, err = parseOld(text)
	}
	if err != nil {
		return Spec{}, err
	}
	return s, s.check()
}

// parseOld reads "CIPHER[:KEYS]-MODE-IV[:HASH]". A cipher alone is cbc-plain.
func parseOld(text string) (Spec, error) {
	s := Spec{Keys: 1}
	if strings.Contains(text, "(") {
		return s, dm.Errorf(syscall.EINVAL, "Bad cipher specification")
	}
	first, rest, _ := strings.Cut(text, "-")
	cipher, count, counted := strings.Cut(first, ":")
	if counted {
		n, err := strconv.ParseUint(count, 10, 16)
		if err != nil || n == 0 || n&(n-1) != 0 || n > maxKeys {
			return s, dm.Errorf(syscall.EINVAL, "Bad cipher key count specification")
		}
		s.Keys = int(n)
	}
	s.Cipher = cipher
	mode, iv, _ := strings.Cut(rest, "-")
	s.Mode = mode
	s.IV, s.Hash, _ = strings.Cut(iv, ":")
	if mode == "" || mode == "plain" && s.IV == "" {
		s.Mode, s.IV = "cbc", "plain"
	}
	if s.Mode != "ecb" && s.IV == "" {
		return s, dm.Errorf(syscall.EINVAL, "IV mechanism required")
	}
	return s, nil
}

// maxKeys bounds the memory of a specification; loop-AES uses 64.
const maxKeys = 64

// parseAPI reads "MODE(CIPHER)-IV[:HASH]".
func parseAPI(text string) (Spec, error) {
	s := Spec{Keys: 1}
	if i := strings.LastIndexByte(text, ':'); i >= 0 {
		text, s.Hash = text[:i], text[i+1:]
	}
	if i := strings.LastIndexByte(text, '-'); i >= 0 {
		text, s.IV = text[:i], text[i+1:]
	}
	mode, cipher, ok := strings.Cut(strings.TrimSuffix(text, ")"), "(")
	if !ok || !strings.HasSuffix(text, ")") {
		return s, missing("the kernel's name %q is none of MODE(CIPHER)", text)
	}
	s.Mode, s.Cipher = mode, cipher
	return s, nil
}

// check sees that the parts are there, in the order in which the kernel looks.
func (s *Spec) check() error {
	if s.IV == "essiv" && s.Hash == "" {
		return dm.Errorf(syscall.EINVAL, "Digest algorithm missing for ESSIV mode")
	}
	if _, ok := ciphers[s.Cipher]; !ok {
		return missing("there is no cipher %q; use aes, twofish or cipher_null", s.Cipher)
	}
	if s.Mode != "xts" && s.Mode != "cbc" && s.Mode != "ecb" || s.Cipher == nullCipher && s.Mode != "ecb" {
		return missing("there is no mode %q of %s; use xts, cbc or ecb", s.Mode, s.Cipher)
	}
	if s.IV == "essiv" && s.Hash != "sha256" {
		return missing("there is no hash %q for essiv; use sha256", s.Hash)
	}
	if s.Mode == "ecb" {
		s.IV, s.Hash = "", ""
		return nil
	}
	switch s.IV {
	case "":
	case "random":
		return dm.Because(dm.Errorf(syscall.EINVAL, "vectors of random need an integrity device below, which udm does not have"), "Integrity profile not supported.")
	case "lmk", "tcw", "elephant":
		return dm.Because(dm.Errorf(syscall.EINVAL, "vectors of %s are those of other systems' formats, which udm does not have", s.IV), "Invalid IV mode")
	default:
		if vectors[s.IV] == nil {
			return dm.Errorf(syscall.EINVAL, "Invalid IV mode")
		}
	}
	return nil
}

func missing(format string, args ...any) error {
	return dm.Because(dm.Errorf(syscall.ENOENT, "%s", fmt.Sprintf(format, args...)), "Error allocating crypto tfm")
}
