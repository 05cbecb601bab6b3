package switchtarget

import (
	"fmt"
	"math"
	"strings"
	"syscall"

	"udm/dm"
)

// Line is what a table says behind "switch".
type Line struct {
	Region uint32 // sectors
	Paths  []dm.Place
}

// ParseLine understands the words of a table. Beside an error about an offset it
// returns the line up to there: a device comes before its offset.
func ParseLine(words []string) (*Line, error) {
	a := dm.NewArgs(words)
	n, err := a.Number(1, math.MaxUint32, "Invalid number of paths")
	if err != nil {
		return nil, err
	}
	region, err := a.Number(1, math.MaxUint32, "Invalid region size")
	if err != nil {
		return nil, err
	}
	if _, err = a.Group(0, 0, "Invalid number of optional args"); err != nil {
		return nil, err
	}
	if uint64(a.Len()) != 2*n {
		return nil, dm.Errorf(syscall.EINVAL, "Incorrect number of path arguments")
	}
	l := &Line{Region: uint32(region)}
	for range n {
		if err := l.parsePath(a); err != nil {
			return l, err
		}
	}
	return l, nil
}

func (l *Line) parsePath(a *dm.Args) error {
	device := a.Next()
	// kstrtoull: a plus sign is allowed, what does not fit is refused.
	start, err := dm.ParseUint64(a.Next())
	l.Paths = append(l.Paths, dm.Place{Device: device, Start: start})
	return dm.Because(err, "Invalid device starting offset")
}

func (l *Line) Target() string { return "switch" }

func (l *Line) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %d 0", len(l.Paths), l.Region)
	for _, p := range l.Paths {
		b.WriteString(" " + p.String())
	}
	return b.String()
}

func (l *Line) Devices() (ds []dm.DeviceWord) {
	for i := range l.Paths {
		ds = append(ds, l.Paths[i].Word(dm.Plain))
	}
	return ds
}
