package multipath

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"syscall"

	"udm/dm"
)

// Line is the words of a table line after "multipath".
type Line struct {
	QueueIfNoPath bool
	// InitRetries, InitDelay (milliseconds) and KeepHandler are for hardware handlers,
	// which there are none of.
	InitRetries uint32 // 0: not given
	InitDelay   *uint32
	KeepHandler bool
	Bios        bool   // queue_mode bio; it implies KeepHandler
	Polling     uint32 // seconds between tests of paths that have failed; 0: none
	Initial     int    // group to begin with, from 1 on; 0: there is no group
	Groups      []Group
}

// Group is a priority group: paths that are used side by side.
type Group struct {
	Selector          string
	Weight, Threshold uint32 // of historical-service-time
	Paths             []Path
}

// Path is a device that leads to the disk.
type Path struct {
	Device     string
	Repeat     uint32 // 0 or 1; of no effect
	Throughput uint32 // of service-time, relative to that of other paths
}

const (
	maxFeatures      = 8 // as in the kernel, if Polling is not among them
	maxPolling       = 3600
	polling          = "polling_interval"
	badFeatureCount  = "invalid number of feature args"
	maxArgs          = 1024
	maxThroughput    = 100
	defaultWeight    = 972 // 0.95 of one
	one              = 1024
	handlerIsRefused = "hardware handlers are not supported; write 0 in place of %d %s"
)

func invalid(format string, args ...any) error { return dm.Errorf(syscall.EINVAL, format, args...) }

// ParseLine parses the words of a table line.
func ParseLine(words []string) (*Line, error) {
	l, err := parse(words)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// parse is ParseLine. With an error it also returns what comes before the wrong word:
// devices are opened in the order of the line.
func parse(words []string) (*Line, error) {
	a, l := dm.NewArgs(words), &Line{}
	if err := l.parseFeatures(a); err != nil {
		return l, err
	}
	if err := l.parseHandler(a); err != nil {
		return l, err
	}
	n, err := a.Number(0, maxArgs, "invalid number of priority groups")
	if err != nil {
		return l, err
	}
	initial, err := a.Number(0, maxArgs, "invalid initial priority group number")
	if err != nil {
		return l, err
	}
	if (n == 0) != (initial == 0) {
		return l, invalid("invalid initial priority group")
	}
	for a.Len() > 0 {
		l.Groups = append(l.Groups, Group{})
		if err := l.Groups[len(l.Groups)-1].parse(a); err != nil {
			return l, err
		}
	}
	if uint64(len(l.Groups)) != n {
		return l, invalid("priority group count mismatch")
	}
	if l.Initial = int(initial); initial > n {
		l.Initial = 1
	}
	return l, nil
}

func (l *Line) parseFeatures(a *dm.Args) error {
	n, err := a.Group(0, maxFeatures+2, badFeatureCount)
	if err != nil {
		return err
	}
	words := make([]string, n)
	for i := range words {
		words[i] = a.Next()
	}
	if n > maxFeatures && !slices.ContainsFunc(words, func(w string) bool { return strings.EqualFold(w, polling) }) {
		return invalid(badFeatureCount)
	}
	for f := dm.NewArgs(words); f.Len() > 0; {
		if err := l.parseFeature(f); err != nil {
			return err
		}
	}
	l.KeepHandler = l.KeepHandler || l.Bios
	return nil
}

func (l *Line) parseFeature(f *dm.Args) error {
	word := strings.ToLower(f.Next())
	switch word {
	case "queue_if_no_path":
		l.QueueIfNoPath = true
		return nil
	case "retain_attached_hw_handler":
		l.KeepHandler = true
		return nil
	}
	if f.Len() == 0 {
		return invalid("Unrecognised multipath feature request")
	}
	var n uint64
	var err error
	switch word {
	case "pg_init_retries":
		n, err = f.Number(1, 50, "pg_init_retries must be between 1 and 50")
		l.InitRetries = uint32(n)
	case "pg_init_delay_msecs":
		n, err = f.Number(0, 60000, "pg_init_delay_msecs must be between 0 and 60000")
		delay := uint32(n)
		l.InitDelay = &delay
	case polling:
		n, err = f.Number(1, maxPolling, fmt.Sprintf("%s must be between 1 and %d", polling, maxPolling))
		l.Polling = uint32(n)
	case "queue_mode":
		return l.parseMode(strings.ToLower(f.Next()))
	default:
		return invalid("Unrecognised multipath feature request")
	}
	return err
}

// parseMode: what the kernel calls requests and multiple queues are bios here as well.
func (l *Line) parseMode(mode string) error {
	switch mode {
	case "bio":
		l.Bios = true
	case "rq", "mq":
		l.Bios = false
	default:
		return invalid("Unknown 'queue_mode' requested")
	}
	return nil
}

// parseHandler ignores a hardware handler where the kernel does.
func (l *Line) parseHandler(a *dm.Args) error {
	n, err := a.Group(0, maxArgs, "invalid number of hardware handler args")
	if err != nil || n == 0 {
		return err
	}
	var words []string
	for range n {
		words = append(words, a.Next())
	}
	if !l.Bios {
		return invalid(handlerIsRefused, n, strings.Join(words, " "))
	}
	return nil
}

func (g *Group) parse(a *dm.Args) error {
	if a.Len() < 2 {
		return invalid("not enough priority group arguments")
	}
	g.Selector = a.Next()
	k := kindOf(g.Selector)
	if k == nil {
		return invalid("unknown path selector type")
	}
	n, err := a.Group(0, maxArgs, "invalid number of path selector args")
	if err != nil {
		return err
	}
	var words []string
	for range n {
		words = append(words, a.Next())
	}
	if k.weighs && !g.parseWeights(words) {
		return invalid("path selector constructor failed")
	}
	return g.parsePaths(a, k)
}

func (g *Group) parseWeights(words []string) (ok bool) {
	g.Weight = defaultWeight
	for i, to := range []*uint32{&g.Weight, &g.Threshold} {
		if i < len(words) {
			if *to, ok = parseWrapping(words[i]); !ok {
				return false
			}
		}
	}
	return len(words) <= 2 && g.Weight < one
}

func (g *Group) parsePaths(a *dm.Args, k *kind) error {
	n, err := a.Number(1, maxArgs, "invalid number of paths")
	if err != nil {
		return err
	}
	args, err := a.Number(0, maxArgs, "invalid number of selector args")
	if err != nil {
		return err
	}
	for range n {
		if uint64(a.Len()) < 1+args {
			return invalid("not enough path parameters")
		}
		p := Path{Device: a.Next()}
		var words []string
		for range args {
			words = append(words, a.Next())
		}
		err := p.parse(k, words)
		if g.Paths = append(g.Paths, p); err != nil {
			return err
		}
	}
	return nil
}

// parse parses what belongs to a path beside its device.
func (p *Path) parse(k *kind, words []string) (err error) {
	if len(words) > k.maxPathWords {
		return invalid("%s ps: incorrect number of arguments", k.name)
	}
	p.Repeat = 1
	ok := true
	if len(words) > 0 {
		if p.Repeat, ok = parseWrapping(words[0]); !ok {
			return invalid("%s ps: invalid repeat count", k.name)
		}
	}
	if p.Repeat = min(p.Repeat, 1); k.weighs {
		p.Repeat = 0
	}
	if k.maxPathWords < 2 {
		return nil
	}
	if p.Throughput = 1; len(words) == 2 {
		if p.Throughput, ok = parseWrapping(words[1]); !ok || p.Throughput > maxThroughput {
			return invalid("%s ps: invalid relative_throughput value", k.name)
		}
	}
	return nil
}

// parseWrapping parses a number of 32 bits. A larger one wraps, as in the kernel.
func parseWrapping(word string) (uint32, bool) {
	n, err := dm.ParseUint(word, math.MaxUint64)
	return uint32(n), err == nil
}

func (l *Line) Target() string { return "multipath" }

func (l *Line) Devices() (ds []dm.DeviceWord) {
	for i := range l.Groups {
		for j := range l.Groups[i].Paths {
			ds = append(ds, dm.DeviceWord{Name: &l.Groups[i].Paths[j].Device})
		}
	}
	return ds
}
