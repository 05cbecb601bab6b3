package dmsetup

import (
	"strings"
)

// checkDisplayOptions refuses invalid -o options of ls, deps and trees. Reports check
// their own.
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

// displayNames is how -o names devices.
func (t *tool) displayNames() naming {
	n, _ := parseNaming(t.value["options"]) // checked earlier
	return n
}

// parseNaming parses the options of ls and deps; the last one counts. Each may be
// abbreviated.
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
