package all_test

import (
	"strings"
	"testing"

	"udm/targets/all"
)

func TestTypesAreComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, ty := range all.Types() {
		if ty.Name == "" || seen[ty.Name] || ty.New == nil || ty.Parse == nil || ty.Version == [3]uint32{} {
			t.Errorf("type %q is not complete or there twice", ty.Name)
		}
		seen[ty.Name] = true
	}
}

// cryptKey is a key of 32 bytes.
var cryptKey = strings.Repeat("0123456789abcdef", 4)

// verityRoot is the hash of a block of 4096 zeroes.
const verityRoot = "ad7facb2586fc6e966c004d7d1d16b024f5805ff7cb47c7a85dabd8b48892ca7"

// TestManuals: each type's manual has what "udm targets NAME" promises.
func TestManuals(t *testing.T) {
	for _, ty := range all.Types() {
		for _, part := range []string{ty.Name + ": ", "\nTable:\n", "\nStatus (dmsetup status)", "\nMessages", "\nExample"} {
			if !strings.Contains("\n"+ty.Doc, part) {
				t.Errorf("the manual of %s has no %q", ty.Name, part)
			}
		}
		for line := range strings.Lines(ty.Doc) {
			if len(line) > 89 || strings.Contains(line, "\t") {
				t.Errorf("%s: wider than 88 or with a tab: %s", ty.Name, line)
			}
		}
	}
}
