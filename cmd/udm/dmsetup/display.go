package dmsetup

import (
	"strings"
)

// checkDisplayOptions refuses what -o must not say for ls, deps and trees.
// Reports look at it by themselves.
func (t *tool) checkDisplayOptions() error {
	switch {
	case t.has("tree"):
		_, err := t.parseTreeStyle()
		return err
	case t.has("columns") || !t.has("options"):
		return nil
	}
	_, err := parseNaming(t.value["options"])
	return err
}

// displayNames is how -o wants devices to be named.
func (t *tool) displayNames() naming {
	n, _ := parseNaming(t.value["options"]) // checked at the start
	return n
}

// parseNaming reads the options of ls and deps, the last of which counts. Each
// may be cut short.
func parseNaming(options string) (n naming, err error) {
	for rest := options; rest != ""; {
		whole := rest
		var word string
		word, rest, _ = strings.Cut(rest, ",")
		switch {
		case strings.HasPrefix("devno", word):
			n = byNumber
		case strings.HasPrefix("blkdevname", word):
			n = byBlockName
		case strings.HasPrefix("devname", word):
			n = byMapName
		default:
			return n, complain("Option not recognised: %s.", whole)
		}
	}
	return n, nil
}
