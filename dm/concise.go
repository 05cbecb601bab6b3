package dm

import (
	"fmt"
	"strconv"
	"strings"
)

// Several devices in one line, as "dmsetup create --concise" reads and
// "dmsetup table --concise" prints them:
//
//	NAME,UUID,MINOR,FLAGS,TABLE[,TABLE]…[;NAME,…]…
//
// A backslash makes the next character part of a field. Blanks after the first four
// commas and after semicolons are ignored. MINOR may be empty; FLAGS is ro, rw or
// empty; each TABLE is one line of a table.

// Concise is one device of such a line.
type Concise struct {
	Name, UUID string
	Minor      int // negative: any
	ReadOnly   bool
	Table      []Spec
}

const conciseFields = 5

// ConciseError reports what is wrong with a line of devices.
type ConciseError struct {
	Reason string // dmsetup's words, in one line or two
}

func (e *ConciseError) Error() string { return e.Reason }

// ParseConcise parses a line of devices. With an error it also returns the devices
// before the wrong one, because dmsetup creates these before it fails. The error is a
// *[ConciseError] or a *[TableError].
func ParseConcise(text string) ([]Concise, error) {
	var devices []Concise
	for p := (&conciseParser{rest: text}); ; {
		fields, err := p.device()
		if err != nil || fields == nil {
			return devices, err
		}
		d, err := newConcise(fields)
		if err != nil {
			return devices, err
		}
		devices = append(devices, d)
	}
}

func newConcise(f []string) (d Concise, err error) {
	d = Concise{Name: f[0], UUID: f[1], Minor: -1, ReadOnly: f[3] == "ro"}
	if f[2] != "" {
		d.Minor = atoi(f[2])
	}
	if f[3] != "" && f[3] != "rw" && f[3] != "ro" {
		return d, &ConciseError{fmt.Sprintf("Invalid flags parameter '%s' must be 'ro' or 'rw' or empty.", f[3])}
	}
	d.Table, err = ParseTable(f[4])
	return d, err
}

// atoi is C's atoi: the number that s begins with, or 0.
func atoi(s string) int {
	n, _, _ := cutNumber(s)
	return int(int32(n))
}

type conciseParser struct {
	rest   string
	fields []string // of the current device; the last one is not complete
}

func (p *conciseParser) put(c byte) {
	last := &p.fields[len(p.fields)-1]
	*last += string([]byte{c})
}

// device returns the fields of the next device, or nil at the end of the line.
func (p *conciseParser) device() ([]string, error) {
	p.fields = []string{""}
	for p.rest != "" {
		c := p.rest[0]
		p.rest = p.rest[1:]
		switch {
		case c == '\\' && p.rest == "":
			return nil, p.wrong("Backslash must be followed by another character at end of string.")
		case c == '\\':
			p.put(p.rest[0])
			p.rest = p.rest[1:]
		case c == ',' && len(p.fields) < conciseFields:
			p.fields = append(p.fields, "")
			p.rest = strings.TrimLeft(p.rest, blanks)
		case c == ',':
			p.put('\n')
		case c == ';' || p.rest == "":
			return p.end(c)
		default:
			p.put(c)
		}
	}
	if len(p.fields) == 1 && p.fields[0] == "" {
		return nil, nil
	}
	return nil, p.wrong("Incomplete entry: five comma-separated fields are required for each device")
}

// end finishes a device at its semicolon or at the last character of the line.
func (p *conciseParser) end(c byte) ([]string, error) {
	if c != ';' {
		p.put(c)
	}
	if len(p.fields) != conciseFields {
		return nil, p.wrong("Five comma-separated fields are required for each device")
	}
	p.rest = strings.TrimLeft(p.rest, blanks)
	return p.fields, nil
}

func (p *conciseParser) wrong(reason string) error {
	f := append(p.fields, "(null)", "(null)", "(null)", "(null)")
	return &ConciseError{fmt.Sprintf("%s\nParsed %d fields: name: %s uuid: %s minor: %s flags: %s table: %s",
		reason, len(p.fields), f[0], f[1], f[2], f[3], f[4])}
}

// FormatConcise returns the line from which ParseConcise makes the devices again.
func FormatConcise(devices []Concise) string {
	var b strings.Builder
	for i, d := range devices {
		if i > 0 {
			b.WriteByte(';')
		}
		d.format(&b)
	}
	return b.String()
}

func (d *Concise) format(b *strings.Builder) {
	minor, flags := "", "rw"
	if d.Minor >= 0 {
		minor = strconv.Itoa(d.Minor)
	}
	if d.ReadOnly {
		flags = "ro"
	}
	fmt.Fprintf(b, "%s,%s,%s,%s", quoteConcise(d.Name), quoteConcise(d.UUID), minor, flags)
	for _, s := range d.Table {
		b.WriteString("," + quoteConcise(s.String()))
	}
}

// quoteConcise puts a backslash before each character that would end the field.
func quoteConcise(s string) string {
	var b strings.Builder
	for i, c := range []byte(s) {
		if c == ',' || c == ';' || c == '\\' || i == 0 && isSpace(c) {
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	return b.String()
}
