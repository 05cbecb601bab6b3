package striped

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"udm/dm"
)

// Line is the words of a table line after "striped".
type Line struct {
	Chunk   uint32 // sectors
	Stripes []dm.Place
}

const notStripe = "Couldn't parse stripe destination"

// ParseLine parses the words of a table line.
func ParseLine(words []string) (*Line, error) {
	n, chunk, err := parseShape(words)
	if err != nil {
		return nil, err
	}
	return parseStripes(words, n, chunk)
}

func parseShape(words []string) (stripes, chunk uint32, err error) {
	if len(words) < 2 {
		return 0, 0, dm.Errorf(syscall.EINVAL, "Not enough arguments")
	}
	if stripes, err = dm.ParseUint32(words[0]); err != nil || stripes == 0 {
		return 0, 0, dm.Errorf(syscall.EINVAL, "Invalid stripe count")
	}
	if chunk, err = dm.ParseUint32(words[1]); err != nil || chunk == 0 {
		return 0, 0, dm.Errorf(syscall.EINVAL, "Invalid chunk_size")
	}
	return stripes, chunk, nil
}

// parseStripes parses the words after the stripe count and the chunk size. With an error
// it also returns the stripes before the wrong one.
func parseStripes(words []string, n, chunk uint32) (*Line, error) {
	l := &Line{Chunk: chunk}
	if uint64(len(words)) != 2+2*uint64(n) {
		return l, dm.Errorf(syscall.EINVAL, "Not enough destinations specified")
	}
	for w := words[2:]; len(w) > 0; w = w[2:] {
		p, err := dm.ParsePlace(w[0], w[1], "Invalid device sector")
		if err != nil {
			return l, dm.Because(err, notStripe)
		}
		l.Stripes = append(l.Stripes, p)
	}
	return l, nil
}

func (l *Line) Target() string { return "striped" }

func (l *Line) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %d", len(l.Stripes), l.Chunk)
	for _, p := range l.Stripes {
		b.WriteString(" " + p.String())
	}
	return b.String()
}

func (l *Line) Devices() (ds []dm.DeviceWord) {
	for i := range l.Stripes {
		ds = append(ds, l.Stripes[i].Word(dm.Plain))
	}
	return ds
}

// Status is the target's words in dmsetup status.
type Status struct{ Stripes []Stripe }

// Stripe is one device of a striped target.
type Stripe struct {
	Device string
	Failed bool // an I/O has failed on it
}

// ParseStatus parses a status.
func ParseStatus(status string) (*Status, error) {
	words := strings.Split(status, " ")
	n, _ := strconv.Atoi(words[0])
	s := &Status{}
	if len(words) == n+3 && len(words[n+2]) == n {
		for i, device := range words[1 : n+1] {
			s.Stripes = append(s.Stripes, Stripe{device, words[n+2][i] == 'D'})
		}
	}
	if n == 0 || s.String() != status {
		return nil, dm.NotStatus("striped", status)
	}
	return s, nil
}

func (s *Status) String() string {
	var devices, health strings.Builder
	for _, st := range s.Stripes {
		devices.WriteString(st.Device + " ")
		if st.Failed {
			health.WriteByte('D')
		} else {
			health.WriteByte('A')
		}
	}
	return fmt.Sprintf("%d %s1 %s", len(s.Stripes), &devices, &health)
}

// Usage is empty: the target has no space of its own.
func (s *Status) Usage() []dm.Usage { return nil }
