package switchtarget

import (
	"fmt"
	"math"
	"strings"
	"syscall"

	"udm/dm"
)

// Line is the words of a table line after "switch".
type Line struct {
	Region uint32 // sectors
	Paths  []dm.Place
}

// ParseLine parses the words of a table line. With an error about an offset it also
// returns the line up to that offset's device, because the kernel opens the devices
// before that error.
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
	// The kernel uses kstrtoull here, unlike other targets.
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
