package lvm

import "strings"

// DeviceName is the dm name of a volume or of a layer of it: the parts with doubled
// hyphens, joined by hyphens.
func DeviceName(group, volume, layer string) string {
	double := func(s string) string { return strings.ReplaceAll(s, "-", "--") }
	name := double(group) + "-" + double(volume)
	if layer != "" {
		name += "-" + double(layer)
	}
	return name
}

// DeviceUUID is the dm uuid of a volume or of a layer of it.
func DeviceUUID(group, volume UUID, suffix string) string {
	uuid := "LVM-" + string(group) + string(volume)
	if suffix != "" {
		uuid += "-" + suffix
	}
	return uuid
}

// SplitName splits the name of a device into group, volume and, if there is one,
// layer. A name with fewer than two parts is not LVM's.
func SplitName(name string) (parts []string) {
	var part strings.Builder
	for i := 0; i < len(name); i++ {
		switch {
		case name[i] != '-':
			part.WriteByte(name[i])
		case i+1 < len(name) && name[i+1] == '-':
			part.WriteByte('-')
			i++
		default:
			parts = append(parts, part.String())
			part.Reset()
		}
	}
	return append(parts, part.String())
}
