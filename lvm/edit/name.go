package edit

import (
	"fmt"
	"strings"

	"udm/lvm"
	"udm/lvm/text"
)

// LVM keeps these names, and names with these parts, for itself.
var (
	ownPrefixes = []string{"snapshot", "pvmove"}
	ownParts    = []string{"_cdata", "_cmeta", "_corig", "_cpool", "_cvol", "_imeta", "_iorig", "_mimage", "_mlog", "_pmspare", "_rimage", "_rmeta",
		"_tdata", "_tmeta", "_vdata", "_vorigin", "_wcorig"}
)

const (
	maxName     = 127
	nameLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+_.-"
)

// checkName fails if users cannot give something a name.
func checkName(what, name string) error {
	odd := func(c rune) bool { return !strings.ContainsRune(nameLetters, c) }
	if strings.ContainsFunc(name, odd) || name == "" || name == "." || name == ".." || name[0] == '-' || len(name) > maxName {
		return fmt.Errorf("%q cannot be the name of a %s: names have letters, digits and + _ . -, and do not begin with -", name, what)
	}
	return nil
}

// checkNew fails if a new volume cannot have a name.
func (ed *Edit) checkNew(name string) error {
	if err := checkName("volume", name); err != nil {
		return err
	}
	for _, p := range ownPrefixes {
		if strings.HasPrefix(name, p) {
			return fmt.Errorf("LVM keeps names that begin with %s for itself", p)
		}
	}
	for _, p := range ownParts {
		if strings.Contains(name, p) {
			return fmt.Errorf("LVM keeps names with %s for itself", p)
		}
	}
	if ed.section("logical_volumes").Find(name) != nil || historical(ed.vg(), name) {
		return fmt.Errorf("the group %s has a volume %s already", ed.group.Name, name)
	}
	if ed.group.PV(name) != nil {
		return fmt.Errorf("the group's text calls a disk %s", name)
	}
	return checkLength(ed.group.Name, name)
}

// historical reports whether the group remembers a removed volume of that name.
func historical(vg *text.Section, name string) bool {
	h := vg.Section("historical_logical_volumes")
	return h != nil && h.Find(name) != nil
}

// checkLength fails if the names of the volume's devices are too long.
func checkLength(group, volume string) error {
	const longestLayer = "vorigin"
	if n := len(lvm.DeviceName(group, volume, longestLayer)); n > maxName {
		return fmt.Errorf("the names %s and %s are too long: those of their devices would have up to %d bytes, and %d are possible", group, volume, n, maxName)
	}
	return nil
}
