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
	Mode   string // "xts", "cbc", "ecb"; of authenticated encryption "gcm" and "rfc7539", too
	Keys   int    // how many keys take turns, a power of two
	IV     string // "plain64" and so on; "" for modes without one
	Hash   string // of essiv

	// AEAD: sectors are authenticated as well, by MAC unless the mode does it.
	AEAD bool
	MAC  string // "hmac(sha256)"; "" if the mode authenticates
	// TagSize is how many bytes are kept beside each sector: the tag, then the vector if
	// IV is "random". The caller sets it.
	TagSize int
	// Random fills p with vectors for IV "random". The caller sets it.
	Random func(p []byte)
}

// Alone is up to how many bytes whoever ends a read or submits a write should decrypt or encrypt
// them rather than hand them over: another goroutine would take longer to begin, and the processor
// that has received what is to be written has it at hand. It is 0 where most processors have no
// instructions for the cipher, or a sector needs more.
func (s *Spec) Alone() (reading, writing uint64) {
	const short = 8 << 10
	switch {
	case s.Tagged() || s.Cipher != "aes" && s.Cipher != nullCipher:
		return 0, 0
	case s.Mode == "xts" && hasWide():
		return 8 * short, 8 * short
	case s.Mode == "xts" && hasAESXTS():
		return short, 8 * short
	}
	return short, short
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

// ParseAEAD understands a specification of authenticated encryption:
//
//	capi:gcm(aes)-IV
//	capi:rfc7539(chacha20,poly1305)-IV
//	capi:authenc(hmac(HASH),MODE(CIPHER))-IV
func ParseAEAD(text string) (Spec, error) {
	rest, ok := strings.CutPrefix(text, "capi:")
	if !ok {
		return Spec{}, dm.Errorf(syscall.EINVAL, "Bad cipher specification")
	}
	var s Spec
	var err error
	if inner, ok := strings.CutPrefix(rest, "authenc("); ok {
		var end string
		s.MAC, rest, _ = strings.Cut(inner, ",")
		if rest, end, ok = cutLast(rest, ")-"); !ok {
			return Spec{}, missing("the kernel's name %q is none of authenc(MAC,MODE(CIPHER))-IV", text)
		}
		rest += "-" + end
	}
	mac := s.MAC
	if s, err = parseAPI(rest); err != nil {
		return Spec{}, err
	}
	s.AEAD, s.MAC = true, mac
	return s, s.checkAEAD()
}

func cutLast(text, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(text, sep)
	if i < 0 {
		return text, "", false
	}
	return text[:i], text[i+len(sep):], true
}

func (s *Spec) checkAEAD() error {
	if s.MAC != "" {
		if s.MACSize() == 0 {
			return missing("there is no MAC %q; use hmac(sha1), hmac(sha256) or hmac(sha512)", s.MAC)
		}
		if s.IV == "essiv" || s.Cipher == nullCipher {
			return missing("there is no authenticated encryption by %s with vectors of %s", s.Cipher, s.IV)
		}
		return s.check()
	}
	switch {
	case s.Mode == "gcm" && s.Cipher == "aes", s.Mode == "rfc7539" && s.Cipher == "chacha20,poly1305":
	default:
		return missing("there is no authenticated encryption %s(%s); use gcm(aes), rfc7539(chacha20,poly1305) or authenc(MAC,MODE(CIPHER))", s.Mode, s.Cipher)
	}
	switch s.IV {
	case "plain", "plain64", "null", randomIV:
		return nil
	}
	return dm.Errorf(syscall.EINVAL, "Invalid IV mode")
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
	if s.Mode == adiantumMode {
		return s.checkWide()
	}
	if _, ok := ciphers[s.Cipher]; !ok {
		return missing("there is no cipher %q; use aes, twofish or cipher_null", s.Cipher)
	}
	if s.Mode != "xts" && s.Mode != "cbc" && s.Mode != "ecb" || s.Cipher == nullCipher && s.Mode != "ecb" {
		return missing("there is no mode %q of %s; use xts, cbc, ecb or xchacha12,aes-adiantum", s.Mode, s.Cipher)
	}
	if s.IV == "essiv" && s.Hash != "sha256" {
		return missing("there is no hash %q for essiv; use sha256", s.Hash)
	}
	if s.Mode == "ecb" {
		s.IV, s.Hash = "", ""
		return nil
	}
	switch s.IV {
	case "", randomIV:
	case "lmk", "tcw", "elephant":
		return dm.Because(dm.Errorf(syscall.EINVAL, "vectors of %s are those of other systems' formats, which udm does not have", s.IV), "Invalid IV mode")
	default:
		if vectors[s.IV] == nil {
			return dm.Errorf(syscall.EINVAL, "Invalid IV mode")
		}
	}
	return nil
}

// randomIV names vectors that are stored beside each sector.
const randomIV = "random"

// checkWide is check for the mode adiantum, whose vectors are longer.
func (s *Spec) checkWide() error {
	if wide[s.Cipher] == 0 {
		return missing("there is no adiantum of %q; use xchacha12,aes or xchacha20,aes", s.Cipher)
	}
	switch s.IV {
	case "plain", "plain64", "null":
		return nil
	case "essiv", "benbi", "eboiv", "plain64be", randomIV:
		return dm.Because(dm.Errorf(syscall.EINVAL, "vectors of %s do not fit adiantum; use plain64", s.IV), "Invalid IV mode")
	}
	return dm.Errorf(syscall.EINVAL, "Invalid IV mode")
}

func missing(format string, args ...any) error {
	return dm.Because(dm.Errorf(syscall.ENOENT, "%s", fmt.Sprintf(format, args...)), "Error allocating crypto tfm")
}
