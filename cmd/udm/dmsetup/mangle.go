package dmsetup

import (
	"fmt"
	"strings"
)

// mangling is how characters that udev does not allow are handled in names and uuids:
// stored as \xNN, and converted back on output.
type mangling string

const (
	auto mangling = "auto" // unless mangled already
	hex  mangling = "hex"  // always
	none mangling = "none" // never
)

func parseMangling(s string) (mangling, bool) {
	m := mangling(strings.ToLower(s))
	return m, m == auto || m == hex || m == none
}

func whitelisted(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' ||
		c != 0 && strings.IndexByte("#+-.:=@_", c) >= 0
}

// The maximum lengths of a stored name and uuid in bytes.
const maxName, maxUUID = 127, 128

// mangle returns the stored form of s; kind says whether it is a name or UUID. The
// error has libdm's words, in one or two lines.
func (m mangling) mangle(s, kind string) (string, error) {
	if m == none {
		return s, nil
	}
	if m == auto && strings.Contains(s, `\x5cx`) {
		return "", complain("The %s \"%s\" seems to be mangled more than once. This is not allowed in auto mode.", kind, s)
	}
	out, err := m.encode(s, kind)
	if err == nil && len(out) > limitOf(kind) {
		err = complain("Mangled form of the %s too long for \"%s\".", kind, s)
	}
	if err != nil {
		return "", complain("%v\nFailed to mangle device %s \"%s\".", err, strings.ToLower(kind), s)
	}
	return out, nil
}

func limitOf(kind string) int {
	if kind == "UUID" {
		return maxUUID
	}
	return maxName
}

func (m mangling) encode(s, kind string) (string, error) {
	var b strings.Builder
	mangled, plain := false, false
	for i := 0; i < len(s); i++ {
		switch {
		case m == auto && strings.HasPrefix(s[i:], `\x`):
			mangled = true
			b.WriteString(s[i:min(i+4, len(s))])
			if len(s)-i < 4 {
				plain = true
			}
			i += 3
		case whitelisted(s[i]):
			b.WriteByte(s[i])
		default:
			plain = true
			fmt.Fprintf(&b, `\x%02x`, s[i])
		}
	}
	if m == auto && mangled && plain {
		return "", complain("The %s \"%s\" contains mixed mangled and unmangled characters or it's already mangled improperly.", kind, s)
	}
	return b.String(), nil
}

// unmangle is the displayed form of a stored name.
func (m mangling) unmangle(s string) string {
	if m == none {
		return s
	}
	return decode(s)
}

func decode(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		var c byte
		if strings.HasPrefix(s[i:], `\x`) && len(s)-i >= 4 {
			if n, _ := fmt.Sscanf(s[i+2:i+4], "%x", &c); n == 1 {
				b.WriteByte(c)
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
