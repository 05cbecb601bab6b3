package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"udm/ctl"
)

// topFlags are the options of udm top.
type topFlags struct {
	prefix string
	sort   string
	every  time.Duration
	once   bool
}

func topCommand() *cobra.Command {
	f := topFlags{}
	cmd := &cobra.Command{
		Use:   "top [PREFIX]",
		Short: "Show the I/O of devices as it happens",
		Long: `top shows a table of devices, the busiest first, and renews it: reads and writes per second,
bytes per second, the time within which half and 99 % of the I/Os have ended, and I/O in
flight. LOAD is the mean number of I/Os in flight: at 1 or more a device may have been busy
all the time. Times are bounds of classes, each four times the one before.

On a terminal, q ends it and s sorts by the next column. Elsewhere each table follows the one
before. With --once it ends after the first. With --json each table is a line.`,
		Example: `  udm top
  udm top vm- --sort bytes      # names that begin with vm-
  udm top --once --interval 10s
  udm top --once --json | jq '.[0].name'`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				f.prefix = args[0]
			}
			return runTop(cmd, f)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.sort, "sort", "iops", "column to sort by: "+strings.Join(topOrders, ", "))
	fl.DurationVar(&f.every, "interval", 2*time.Second, "time between two tables")
	fl.BoolVar(&f.once, "once", false, "print one table, after an interval")
	addJSON(cmd)
	return cmd
}

// leastInterval keeps top from being the load that it shows.
const leastInterval = 100 * time.Millisecond

func runTop(cmd *cobra.Command, f topFlags) error {
	if !slices.Contains(topOrders, f.sort) {
		return usagef(cmd, "--sort %s: give %s", f.sort, strings.Join(topOrders, ", "))
	}
	if f.every < leastInterval {
		return usagef(cmd, "--interval %s: must be at least %s", f.every, leastInterval)
	}
	client, err := clientOf(cmd)
	if err != nil {
		return err
	}
	defer client.Close()
	s := newScreen(cmd, f)
	defer s.close()
	return f.follow(cmd.Context(), client, s)
}

// follow prints a table for each interval until ctx or the user ends it.
func (f *topFlags) follow(ctx context.Context, client *ctl.Client, s *screen) error {
	before, err := client.Stats(ctx)
	at := time.Now()
	if err != nil {
		return err
	}
	for tick := time.NewTicker(f.every); ; {
		if !s.wait(ctx, tick.C) {
			tick.Stop()
			return nil
		}
		now, err := client.Stats(ctx)
		if err != nil {
			tick.Stop()
			return err
		}
		since := time.Since(at)
		at = at.Add(since)
		if err := s.show(topRows(before, now, since, f.prefix)); err != nil || f.once {
			tick.Stop()
			return err
		}
		before = now
	}
}

// topRow is the I/O of a device in an interval.
type topRow struct {
	Name   string  `json:"name"`
	Reads  float64 `json:"readsPerSecond"`
	Writes float64 `json:"writesPerSecond"` // and all else that is no read
	Read   float64 `json:"readBytesPerSecond"`
	Wrote  float64 `json:"writtenBytesPerSecond"`
	// Median and P99 are bounds of latencies, 0 without any I/O, and -1 for more than the
	// largest bound.
	Median   time.Duration `json:"medianNanoseconds"`
	P99      time.Duration `json:"p99Nanoseconds"`
	InFlight int64         `json:"inFlight"`
	Queued   int           `json:"queued"`
	Load     float64       `json:"load"`
	Failed   uint64        `json:"failed"` // in the interval
}

// topRows compares two lists of statistics.
func topRows(before, now []ctl.Stats, since time.Duration, prefix string) []topRow {
	earlier := make(map[ctl.Number]ctl.Stats)
	for _, s := range before {
		earlier[s.Number] = s
	}
	rows := make([]topRow, 0, len(now))
	for _, s := range now {
		if strings.HasPrefix(s.Name, prefix) {
			rows = append(rows, topRowOf(earlier[s.Number], s, since.Seconds()))
		}
	}
	return rows
}

func topRowOf(before, now ctl.Stats, seconds float64) topRow {
	r := topRow{Name: now.Name, InFlight: now.InFlight, Queued: now.Queued}
	buckets, busy := make([]uint64, len(ctl.LatencyBounds)+1), time.Duration(0)
	for _, op := range slices.Sorted(maps.Keys(now.Ops)) {
		b, n := before.Ops[op], now.Ops[op]
		if n.Count < b.Count { // another device with the number of one that is gone
			b = ctl.OpStats{}
		}
		ios, bytes := &r.Writes, &r.Wrote
		if op == "read" {
			ios, bytes = &r.Reads, &r.Read
		}
		*ios += float64(n.Count-b.Count) / seconds
		if op == "read" || op == "write" {
			*bytes += float64(n.Bytes-b.Bytes) / seconds
		}
		r.Failed += n.Failed - b.Failed
		busy += n.Time - b.Time
		for i := range min(len(buckets), len(n.Buckets)) {
			buckets[i] += n.Buckets[i]
			if i < len(b.Buckets) {
				buckets[i] -= b.Buckets[i]
			}
		}
	}
	r.Load = busy.Seconds() / seconds
	r.Median, r.P99 = within(buckets, 0.5), within(buckets, 0.99)
	return r
}

// within is the bound below which a share of all latencies is; -1 if that is none.
func within(buckets []uint64, share float64) time.Duration {
	all, sum := uint64(0), uint64(0)
	for _, n := range buckets {
		all += n
	}
	for i, n := range buckets {
		if sum += n; n > 0 && float64(sum) >= share*float64(all) {
			if i < len(ctl.LatencyBounds) {
				return ctl.LatencyBounds[i]
			}
			return -1
		}
	}
	return 0
}

// topOrders are the columns to sort by.
var topOrders = []string{"iops", "bytes", "latency", "load", "name"}

// sortTop sorts rows by a column, the largest first.
func sortTop(rows []topRow, order string) {
	key := map[string]func(topRow) float64{
		"iops":    func(r topRow) float64 { return r.Reads + r.Writes },
		"bytes":   func(r topRow) float64 { return r.Read + r.Wrote },
		"latency": func(r topRow) float64 { return float64(uint64(r.P99)) }, // -1 is the longest
		"load":    func(r topRow) float64 { return r.Load },
		"name":    func(topRow) float64 { return 0 },
	}[order]
	slices.SortStableFunc(rows, func(a, b topRow) int { // they are in the order of names
		switch x, y := key(a), key(b); {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return 0
	})
}

// printTop prints rows as a table of at most a number of lines; 0 for all.
func printTop(w io.Writer, rows []topRow, lines int) error {
	cells := [][]string{{"NAME", "READS/S", "WRITES/S", "READ/S", "WRITTEN/S", "MEDIAN", "P99", "IN FLIGHT", "WAITING", "LOAD", "FAILED"}}
	for _, r := range rows {
		if lines > 0 && len(cells) >= lines {
			break
		}
		cells = append(cells, []string{printable(r.Name), fmt.Sprintf("%.0f", r.Reads), fmt.Sprintf("%.0f", r.Writes), formatBytes(uint64(r.Read)), formatBytes(uint64(r.Wrote)),
			latencyText(r.Median), latencyText(r.P99), fmt.Sprint(r.InFlight), some(uint64(r.Queued)), fmt.Sprintf("%.2f", r.Load), some(r.Failed)})
	}
	return printTable(w, cells)
}

// latencyText is a bound of latencies in words.
func latencyText(d time.Duration) string {
	switch {
	case d == 0:
		return "-"
	case d < 0:
		return ">" + ctl.LatencyBounds[len(ctl.LatencyBounds)-1].Round(100*time.Millisecond).String()
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(100 * time.Millisecond).String()
}

// some is a number that is worth a column only if it is not 0.
func some(n uint64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

// jsonRows writes rows as one line, or as usual for a single table.
func jsonRows(cmd *cobra.Command, rows []topRow, once bool) error {
	if once {
		return printJSON(cmd, rows)
	}
	return json.NewEncoder(cmd.OutOrStdout()).Encode(rows)
}
