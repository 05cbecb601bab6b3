package service

import (
	"context"

	"udm/blk"
	"udm/ctl"
	"udm/dm"
)

// opNames are the names of ops in stats.
var opNames = []string{blk.Read: "read", blk.Write: "write", blk.Flush: "flush", blk.Discard: "discard", blk.WriteZeroes: "write_zeroes"}

// Stats implements [ctl.Service]. The first who asks has devices count.
func (s *Service) Stats(context.Context) ([]ctl.Stats, error) {
	s.control.Account()
	all, _ := s.StatsSoFar()
	return all, nil
}

// StatsSoFar returns the statistics without having devices count, and whether they do.
func (s *Service) StatsSoFar() (all []ctl.Stats, counting bool) {
	ds := s.control.List()
	all = make([]ctl.Stats, 0, len(ds))
	for _, d := range ds {
		all = append(all, stats(d))
	}
	return all, s.control.Accounting()
}

func stats(d *dm.Device) ctl.Stats {
	a := d.Account()
	out := ctl.Stats{Number: ctl.Number(d.Number()), Name: d.Name(), InFlight: a.InFlight, Queued: a.Waiting}
	for op, o := range a.Ops {
		if o.Count == 0 && o.Failed == 0 {
			continue
		}
		if out.Ops == nil {
			out.Ops = make(map[string]ctl.OpStats)
		}
		out.Ops[opNames[op]] = ctl.OpStats{Count: o.Count, Failed: o.Failed, Bytes: o.Sectors * blk.SectorSize, Time: o.Time, Buckets: o.Buckets[:]}
	}
	if c := d.Commits(); c.Count > 0 {
		out.Commits = (*ctl.Commits)(&c)
	}
	return out
}
