package lvm

import "strings"

// deviceName is the dm name of a volume, or of a layer of it: the parts with their
// hyphens doubled, joined by hyphens.
func deviceName(group, volume, layer string) string {
	double := func(s string) string { return strings.ReplaceAll(s, "-", "--") }
	name := double(group) + "-" + double(volume)
	if layer != "" {
		name += "-" + double(layer)
	}
	return name
}

// deviceUUID is the dm uuid of a volume, or of a layer of it.
func deviceUUID(group, volume UUID, suffix string) string {
	uuid := "LVM-" + string(group) + string(volume)
	if suffix != "" {
		uuid += "-" + suffix
	}
	return uuid
}
