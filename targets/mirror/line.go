package mirror

import (
	"fmt"
	"math/bits"
	"strings"
	"syscall"

	"udm/dm"
)

// Line is what a table says behind "mirror".
type Line struct {
	Log    string // device of the log; "": it is in memory
	Region uint32 // sectors in a region, a power of two
	Sync   Sync
	Legs   []dm.Place
	// HandleErrors holds writes that failed on a leg until the device is suspended, and
	// KeepLog does not, but notes them in the log.
	HandleErrors, KeepLog bool
}

// Sync is what a line says about the legs at the beginning.
type Sync string

const (
	AsLogged Sync = ""       // what the log on the disk says; without one, nothing is in sync
	Resync   Sync = "sync"   // nothing is in sync, whatever the log says
	InSync   Sync = "nosync" // everything is
)

const (
	minLegs = 2
	maxLegs = 9
	badLog  = "Error creating mirror dirty log"
)

func invalid(reason string) error { return dm.Errorf(syscall.EINVAL, "%s", reason) }

// ParseLine understands the words of a table.
func ParseLine(words []string) (*Line, error) {
	l, err := parse(words)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// parse is ParseLine. With an error behind the log it also returns what comes before the
// wrong word: devices are opened in the order of the line.
func parse(words []string) (*Line, error) {
	l := &Line{}
	words, err := l.parseLog(words)
	if err != nil {
		return nil, err
	}
	if words, err = l.parseLegs(words); err != nil {
		return l, err
	}
	if words, err = l.parseFeatures(words); err != nil {
		return l, err
	}
	if len(words) > 0 {
		return l, invalid("Too many mirror arguments")
	}
	return l, nil
}

func (l *Line) parseLog(words []string) (rest []string, err error) {
	if len(words) < 2 {
		return nil, invalid("Insufficient mirror log arguments")
	}
	n, err := dm.ParseUint32(words[1])
	if err != nil {
		return nil, invalid("Invalid mirror log argument count")
	}
	if uint64(len(words)-2) < uint64(n) {
		return nil, invalid("Insufficient mirror log arguments")
	}
	args := words[2 : 2+n]
	switch words[0] {
	case "core":
		err = l.parseLogArgs(args)
	case "disk":
		if len(args) < 2 {
			err = invalid("wrong number of arguments")
			break
		}
		l.Log = args[0]
		err = l.parseLogArgs(args[1:])
	default:
		err = invalid("logs are of type core or disk, not " + words[0])
	}
	return words[2+n:], dm.Because(err, badLog)
}

func (l *Line) parseLogArgs(args []string) (err error) {
	if len(args) < 1 || len(args) > 2 {
		return invalid("wrong number of arguments")
	}
	if len(args) == 2 {
		if l.Sync = Sync(args[1]); l.Sync != Resync && l.Sync != InSync {
			return invalid("unrecognised sync argument " + args[1])
		}
	}
	if l.Region, err = dm.ParseUint32(args[0]); err != nil || l.Region < 2 || bits.OnesCount32(l.Region) != 1 {
		return invalid("invalid region size " + args[0])
	}
	return nil
}

func (l *Line) parseLegs(words []string) (rest []string, err error) {
	var n uint32
	if len(words) > 0 {
		n, err = dm.ParseUint32(words[0])
	}
	if err != nil || n < minLegs || n > maxLegs {
		return nil, invalid("Invalid number of mirrors")
	}
	if words = words[1:]; len(words) < 2*int(n) {
		return nil, invalid("Too few mirror arguments")
	}
	for range n {
		p, err := dm.ParsePlace(words[0], words[1], "Invalid offset")
		if err != nil {
			return nil, err
		}
		l.Legs, words = append(l.Legs, p), words[2:]
	}
	return words, nil
}

func (l *Line) parseFeatures(words []string) (rest []string, err error) {
	if len(words) == 0 {
		return nil, nil
	}
	n, err := dm.ParseUint32(words[0])
	if err != nil {
		return nil, invalid("Invalid number of features")
	}
	if words = words[1:]; uint64(n) > uint64(len(words)) {
		return nil, invalid("Not enough arguments to support feature count")
	}
	for _, w := range words[:n] {
		switch w {
		case "handle_errors":
			l.HandleErrors = true
		case "keep_log":
			l.KeepLog = true
		default:
			return nil, invalid("Unrecognised feature requested")
		}
	}
	if l.KeepLog && !l.HandleErrors {
		return nil, invalid("keep_log feature requires the handle_errors feature")
	}
	return words[n:], nil
}

func (l *Line) Target() string { return "mirror" }

func (l *Line) String() string {
	var words []string
	add := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	args := 1
	if l.Sync != AsLogged {
		args++
	}
	if l.Log == "" {
		add("core %d", args)
	} else {
		add("disk %d %s", args+1, dm.QuoteWord(l.Log))
	}
	add("%d", l.Region)
	if l.Sync != AsLogged {
		add("%s", l.Sync)
	}
	add("%d", len(l.Legs))
	for _, p := range l.Legs {
		add("%s", p)
	}
	switch {
	case l.KeepLog:
		add("2 handle_errors keep_log")
	case l.HandleErrors:
		add("1 handle_errors")
	}
	return strings.Join(words, " ")
}

func (l *Line) Devices() (ds []dm.DeviceWord) {
	if l.Log != "" {
		ds = append(ds, dm.DeviceWord{Name: &l.Log})
	}
	for i := range l.Legs {
		ds = append(ds, l.Legs[i].Word(dm.Plain))
	}
	return ds
}
