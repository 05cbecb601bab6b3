package activation

import (
	"fmt"
	"strings"

	"udm/ctl"
	"udm/lvm"
)

// same fails unless a device is as it would be created now.
func same(d ctl.Device, r ctl.Create) error {
	switch {
	case d.Waiting != "":
		return fmt.Errorf("it is active, but waits: %s", d.Waiting)
	case d.Name != r.Name:
		return fmt.Errorf("it is active under another name, %s", d.Name)
	case d.Suspended || tableOf(d) != tableText(r.Table) || d.ReadOnly != r.ReadOnly:
		return inAnotherWay(lvm.SplitName(d.Name)[0])
	}
	return nil
}

func inAnotherWay(group string) error {
	return fmt.Errorf("it is active in another way; deactivate the group first: udm lvm deactivate %s", group)
}

// tableOf is the table of a device with names instead of numbers.
func tableOf(d ctl.Device) string {
	names := map[string]string{}
	for _, dep := range d.Deps {
		if names[dep.String()] = dep.Source; dep.Map != "" {
			names[dep.String()] = "/dev/mapper/" + dep.Map
		}
	}
	var text strings.Builder
	for _, l := range d.Table {
		words := strings.Fields(l.String())
		for i, w := range words {
			if name, ok := names[w]; ok {
				words[i] = name
			}
		}
		fmt.Fprintln(&text, strings.Join(words, " "))
	}
	return text.String()
}

// tableText is a table without blanks at the ends of lines.
func tableText(table string) string {
	var text strings.Builder
	for line := range strings.Lines(table) {
		fmt.Fprintln(&text, strings.Join(strings.Fields(line), " "))
	}
	return text.String()
}
