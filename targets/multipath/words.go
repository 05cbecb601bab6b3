package multipath

import (
	"fmt"
	"strings"

	"udm/dm"
)

// words is a text with a blank behind each word, as the kernel prints it.
type words struct{ strings.Builder }

func (w *words) add(format string, args ...any) { fmt.Fprintf(w, format+" ", args...) }

// String has a blank at its end, as the line of Linux has.
func (l *Line) String() string {
	w := &words{}
	features := l.features()
	w.add("%d", len(features))
	for _, f := range features {
		w.add("%s", f)
	}
	w.add("0 %d %d", len(l.Groups), l.Initial)
	for i := range l.Groups {
		l.Groups[i].print(w)
	}
	return w.String()
}

func (l *Line) features() (fs []string) {
	add := func(is bool, format string, args ...any) {
		if is {
			fs = append(fs, strings.Fields(fmt.Sprintf(format, args...))...)
		}
	}
	add(l.QueueIfNoPath, "queue_if_no_path")
	add(l.InitRetries > 0, "pg_init_retries %d", l.InitRetries)
	if l.InitDelay != nil {
		add(true, "pg_init_delay_msecs %d", *l.InitDelay)
	}
	add(l.KeepHandler, "retain_attached_hw_handler")
	add(l.Bios, "queue_mode bio")
	add(l.Polling > 0, "%s %d", polling, l.Polling)
	return fs
}

func (g *Group) print(w *words) {
	k := kindOf(g.Selector)
	if w.add("%s", k.name); k.weighs {
		w.add("2 %d %d", g.Weight, g.Threshold)
	} else {
		w.add("0")
	}
	w.add("%d %d", len(g.Paths), min(k.maxPathWords, 2))
	for _, p := range g.Paths {
		w.add("%s %d", dm.QuoteWord(p.Device), p.Repeat)
		if k.maxPathWords > 1 {
			w.add("%d", p.Throughput)
		}
	}
}
