package lvm

import "strings"

// UUID is an LVM UUID without hyphens: 32 characters, or empty.
type UUID string

const uuidLength = 32

// uuidGroups are the lengths of the parts between hyphens.
var uuidGroups = [...]int{6, 4, 4, 4, 4, 4, 6}

// String returns the UUID with hyphens.
func (u UUID) String() string {
	if len(u) != uuidLength {
		return string(u)
	}
	parts, rest := make([]string, len(uuidGroups)), string(u)
	for i, n := range uuidGroups {
		parts[i], rest = rest[:n], rest[n:]
	}
	return strings.Join(parts, "-")
}

// parseUUID parses a UUID with or without hyphens.
func parseUUID(s string) (UUID, bool) {
	plain := strings.ReplaceAll(s, "-", "")
	if len(plain) != uuidLength {
		return "", false
	}
	for _, c := range []byte(plain) {
		if !alphanumeric(c) && c != '!' && c != '#' {
			return "", false
		}
	}
	u := UUID(plain)
	return u, s == plain || s == u.String()
}

func alphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}
