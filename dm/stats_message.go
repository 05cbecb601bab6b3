package dm

import (
	"math"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// statsMessage answers the messages @stats_…:
//
//	@stats_create RANGE STEP [N OPTION…] [PROGRAM [AUX]]   the new region's id
//	@stats_delete ID
//	@stats_clear ID
//	@stats_list [PROGRAM]
//	@stats_print ID [FIRST LINES]
//	@stats_print_clear ID [FIRST LINES]
//	@stats_set_aux ID AUX
//
// RANGE is START+LENGTH in sectors, or - for the whole device; STEP is sectors, or /N
// for N areas; OPTION is precise_timestamps or histogram:N,N…; FIRST and LINES may be -.
func (d *Device) statsMessage(args []string) (string, error) {
	var run func(*Args) (string, error)
	switch strings.ToLower(args[0]) {
	case "@stats_create":
		run = d.statsCreate
	case "@stats_delete":
		run = d.statsDelete
	case "@stats_clear":
		run = d.statsClear
	case "@stats_list":
		run = d.statsList
	case "@stats_print":
		run = func(a *Args) (string, error) { return d.statsPrint(a, false) }
	case "@stats_print_clear":
		run = func(a *Args) (string, error) { return d.statsPrint(a, true) }
	case "@stats_set_aux":
		run = d.statsSetAux
	default:
		return "", Errorf(syscall.EINVAL, "Unsupported message sent to DM core: %s", args[0])
	}
	reply, err := run(NewArgs(args[1:]))
	if ErrnoOf(err) == errParams {
		err = Errorf(errParams, "Invalid parameters for message %s", args[0])
	}
	return reply, err
}

const errParams = syscall.EINVAL

func (d *Device) statsCreate(a *Args) (string, error) {
	if a.Len() < 2 {
		return "", errParams
	}
	r := &region{unit: time.Millisecond, program: "-"}
	aux := "-"
	err := r.parseRange(a.Next(), d.tableSize())
	if err == nil {
		err = r.parseStep(a.Next())
	}
	if err == nil {
		err = r.parseOptions(a)
	}
	if err != nil {
		return "", err
	}
	if a.Len() > 0 {
		r.program = a.Next()
	}
	if a.Len() > 0 {
		aux = a.Next()
	}
	if a.Len() > 0 {
		return "", errParams
	}
	r.aux.Store(&aux)
	if err := r.allocate(d.control); err != nil {
		return "", err
	}
	d.addRegion(r)
	return strconv.Itoa(r.id), nil
}

func (d *Device) tableSize() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.live == nil {
		return 0
	}
	return d.live.size
}

func (r *region) parseRange(word string, size uint64) error {
	length := max(size, 1)
	if word != "-" {
		start, rest, _ := strings.Cut(word, "+")
		var ok1, ok2 bool
		r.start, ok1 = scanDigits(start)
		length, ok2 = scanDigits(rest)
		if !ok1 || !ok2 {
			return errParams
		}
	}
	r.end = r.start + length
	if r.start >= r.end {
		return errParams
	}
	return nil
}

func (r *region) parseStep(word string) error {
	n, ok := scanDigits(strings.TrimPrefix(word, "/"))
	if strings.HasPrefix(word, "/") {
		n = uint64(uint32(n))
		if ok && n != 0 {
			n = (r.end-r.start-1)/n + 1
		}
	}
	r.step = n
	if !ok || n == 0 {
		return errParams
	}
	return nil
}

// parseOptions parses "N OPTION…" if the next word is a number.
func (r *region) parseOptions(a *Args) error {
	if a.Len() == 0 {
		return nil
	}
	n, ok := scanDigits(a.rest[0])
	if !ok {
		return nil
	}
	a.Next()
	for n := uint32(n); n > 0; n-- {
		word := strings.ToLower(a.Next())
		bounds, isHistogram := strings.CutPrefix(word, "histogram:")
		switch {
		case word == "precise_timestamps":
			r.unit = time.Nanosecond
		case isHistogram && r.bounds == nil:
			if err := r.parseHistogram(bounds); err != nil {
				return err
			}
		default:
			return errParams
		}
	}
	return nil
}

func (r *region) parseHistogram(list string) error {
	last := uint64(0)
	for word := range strings.SplitSeq(list, ",") {
		n, ok := scanDigits(word)
		if !ok || n <= last {
			return errParams
		}
		r.bounds = append(r.bounds, n)
		last = n
	}
	return nil
}

// regionID takes the id, which the kernel reads into an int.
func regionID(a *Args) (int, error) {
	n, ok := scanDigits(a.Next())
	if id := int32(n); ok && id >= 0 {
		return int(id), nil
	}
	return 0, errParams
}

func (d *Device) statsDelete(a *Args) (string, error) {
	id, err := regionID(a)
	if err != nil || a.Len() != 0 {
		return "", errParams
	}
	return "", d.deleteRegion(id)
}

func (d *Device) statsClear(a *Args) (string, error) {
	id, err := regionID(a)
	if err != nil || a.Len() != 0 {
		return "", errParams
	}
	r, err := d.region(id)
	if err != nil {
		return "", err
	}
	r.print(d.env.Now(), 0, uint64(len(r.areas)), true)
	return "", nil
}

func (d *Device) statsList(a *Args) (string, error) {
	any, program := a.Len() == 0, a.Next()
	if a.Len() != 0 {
		return "", errParams
	}
	var b strings.Builder
	for _, r := range d.regions() {
		if any || r.program == program {
			b.WriteString(r.list())
		}
	}
	return b.String(), nil
}

func (d *Device) statsPrint(a *Args, clear bool) (string, error) {
	argc := a.Len()
	id, err := regionID(a)
	if err != nil || argc != 1 && argc != 3 {
		return "", errParams
	}
	from, lines := uint64(0), uint64(math.MaxUint64)
	if argc == 3 && (!dashOr(a.Next(), &from) || !dashOr(a.Next(), &lines)) {
		return "", errParams
	}
	r, err := d.region(id)
	if err != nil {
		return "", err
	}
	to := from + lines
	if n := uint64(len(r.areas)); to < from || to > n {
		to = n
	}
	return r.print(d.env.Now(), min(from, to), to, clear), nil
}

// dashOr parses a number into n, and leaves n unchanged for a dash.
func dashOr(word string, n *uint64) bool {
	if word == "-" {
		return true
	}
	var ok bool
	*n, ok = scanDigits(word)
	return ok
}

func (d *Device) statsSetAux(a *Args) (string, error) {
	if a.Len() != 2 {
		return "", errParams
	}
	id, err := regionID(a)
	if err != nil {
		return "", err
	}
	r, err := d.region(id)
	if err != nil {
		return "", err
	}
	aux := a.Next()
	r.aux.Store(&aux)
	return "", nil
}
