package dmsetup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"udm/dm"
)

// readTable reads the table of a create or load from --table, a file, or standard
// input. It prints errors.
func (t *tool) readTable(file string) (text string, ok bool) {
	var origin string
	var err error
	switch {
	case t.has("table"):
		text = t.value["table"]
	case file != "":
		origin = file
		text, err = readFile(file)
	default:
		origin = "on stdin"
		text, err = readAll(t.In)
	}
	if err != nil {
		return "", t.errorf("%v", err)
	}
	return t.checkTable(text, origin)
}

func readFile(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", complain("Couldn't open '%s' for reading.", file)
	}
	return string(text), nil
}

func readAll(r io.Reader) (string, error) {
	text, err := io.ReadAll(r)
	return string(text), err
}

// checkTable parses a table like libdm, and formats it for the daemon.
func (t *tool) checkTable(text, origin string) (string, bool) {
	specs, err := dm.ParseTable(text)
	if err != nil {
		return "", t.errorf("%s", tableError(err, origin))
	}
	return formatTable(specs), true
}

// formatTable writes a table as libdm passes it to the kernel, with backslashes
// doubled so that they do not quote anything.
func formatTable(specs []dm.Spec) string {
	for i := range specs {
		specs[i].Params = strings.ReplaceAll(specs[i].Params, `\`, `\\`)
	}
	return dm.FormatTable(specs)
}

// tableError is libdm's text for an invalid table; origin is its source.
func tableError(err error, origin string) string {
	var e *dm.TableError
	if errors.As(err, &e) && strings.HasPrefix(e.Reason, "Invalid format") {
		return fmt.Sprintf("Invalid format on line %d of table %s.", e.Line, origin)
	}
	return err.Error()
}
