//go:build unix

package kernel

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"udm/test/kernel/conform"
)

// content is what the sectors of a volume hold, in the words of conform.Describe; where that is not certain, several things.
type content struct {
	now []values // if nothing is lost
	may []values // after a power cut
}

type values []string

func newContent(sectors int) *content {
	c := &content{make([]values, sectors), make([]values, sectors)}
	for i := range sectors {
		c.now[i], c.may[i] = values{"zero"}, values{"zero"}
	}
	return c
}

func (c *content) clone() *content {
	return &content{slices.Clone(c.now), slices.Clone(c.now)}
}

// put changes sectors from at on. Unless it is certain, they may also hold what they held before.
func (c *content) put(at, n int, certain bool, what func(sector int) string) {
	for s := at; s < at+n; s++ {
		v := what(s)
		c.may[s] = append(slices.Clip(c.may[s]), v)
		if c.now[s] = append(slices.Clip(c.now[s]), v); certain {
			c.now[s] = values{v}
		}
	}
}

// flush makes durable what is there.
func (c *content) flush() { c.may = slices.Clone(c.now) }

// check compares what was read from sector 0 on, as conform.Describe tells it, with what may be there.
func (c *content) check(lines []string) error {
	next := 0
	for _, l := range lines {
		var at, n, seed, from int
		if _, err := fmt.Sscanf(l, "%d+%d", &at, &n); err != nil || at != next || at+n > len(c.may) {
			return fmt.Errorf("read answers %q", l)
		}
		_, what, _ := strings.Cut(l, " ")
		_, err := fmt.Sscanf(what, "data %d@%d", &seed, &from)
		for s := at; s < at+n; s++ {
			if err == nil {
				what = fmt.Sprintf("data %d@%d", seed, from+s-at)
			}
			if !slices.Contains(c.may[s], what) {
				return fmt.Errorf("sector %d holds %s, may hold %q", s, what, c.may[s])
			}
		}
		next = at + n
	}
	if next != len(c.may) {
		return fmt.Errorf("read ends at sector %d of %d", next, len(c.may))
	}
	return nil
}

// history is what a script has done until its end: the devices that are there, and what they may hold.
type history struct {
	creates []string // the commands that made the devices that are there, oldest first
	volumes map[string]*content
	began   [][]string // "&" commands that no "join" has answered, oldest first
}

// remember goes through answers; the last one may be that of a command in whose midst the power went off.
func remember(answers []conform.Answer) *history {
	h := &history{volumes: map[string]*content{}}
	for _, a := range answers {
		h.command(a.Line.Words, a.Line.Text, len(a.Output) == 0 || !strings.HasPrefix(a.Output[0], "e"))
	}
	return h
}

func (h *history) command(words []string, text string, ok bool) {
	switch words[0] {
	case "&":
		h.began = append(h.began, words[1:])
		h.change(words[1:], false)
	case "join":
		words, h.began = h.began[0], h.began[1:]
		h.change(words, ok)
	case "flush":
		if v := h.volumes[words[1]]; ok && v != nil {
			v.flush()
		}
	case "dmsetup":
		h.dmsetup(words[1:], text, ok)
	default:
		h.change(words, ok)
	}
}

func (h *history) change(words []string, ok bool) {
	n := numbers(words)
	v := h.volumes[words[1]]
	if words[1] == "$o" { // before the origin is there
		v = newContent(n[1])
		h.volumes["org"] = v
		defer v.flush()
	}
	if v == nil {
		return
	}
	switch words[0] {
	case "write":
		v.put(n[0], n[1], ok, func(s int) string { return fmt.Sprintf("data %d@%d", n[2], s) })
	case "zero":
		v.put(n[0], n[1], ok, func(int) string { return "zero" })
	case "discard":
		v.put(n[0], n[1], false, func(int) string { return "zero" })
	}
}

// numbers are the arguments of a data command behind the device.
func numbers(words []string) (n [3]int) {
	for i, w := range words[min(2, len(words)):] {
		n[i], _ = strconv.Atoi(w)
	}
	return n
}

func (h *history) dmsetup(args []string, text string, ok bool) {
	switch {
	case args[0] == "remove":
		prefix := "dmsetup create " + args[1] + " "
		h.creates = slices.DeleteFunc(h.creates, func(c string) bool { return strings.HasPrefix(c, prefix) })
	case !ok:
	case args[0] == "create":
		h.creates = append(h.creates, text)
		if name := args[1]; h.volumes[name] == nil && (name == "s" || name == "t") {
			h.volumes[name] = h.volumes["org"].clone()
		}
	case args[0] == "message" && args[3] == "create_thin":
		h.volumes["t"+args[4]] = newContent(4096)
	case args[0] == "message" && args[3] == "create_snap":
		h.volumes["t"+args[4]] = h.volumes["t"+args[5]].clone()
	}
}

// live are the volumes that are there, in the order in which they were made.
func (h *history) live() (names []string) {
	for _, c := range h.creates {
		if name := strings.Fields(c)[2]; h.volumes[name] != nil {
			names = append(names, name)
		}
	}
	return names
}
