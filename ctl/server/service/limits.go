package service

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"syscall"

	"udm/ctl"
	"udm/ctl/server/state"
	"udm/dm"
	"udm/env"
)

// limits are the throttles of devices and groups.
type limits struct {
	changing *env.Mutex // held while a limit is changed, and that is saved

	mu     sync.Mutex                  // a leaf
	own    map[*dm.Device]*dm.Throttle // guarded by mu
	groups map[string]*dm.Throttle     // guarded by mu
}

// Limit implements [ctl.Service].
func (s *Service) Limit(ctx context.Context, l ctl.Limit) error {
	if err := s.settled(ctx); err != nil {
		return err
	}
	if l.Device == "" && l.Group == "" {
		return dm.Errorf(syscall.EINVAL, "give a device or a group")
	}
	s.limits.changing.Lock()
	defer s.limits.changing.Unlock()
	if l.Device == "" {
		return s.limitGroup(l)
	}
	d, err := s.find(ctl.Ref{Name: l.Device})
	if err != nil {
		return err
	}
	saved := state.Limit{Group: l.Group, Read: state.Rate(l.Read), Write: state.Rate(l.Write)}
	if _, ok := s.state.Groups()[l.Group]; l.Group != "" && !ok {
		return dm.Errorf(syscall.ENOENT, "there is no group %s; give it a limit first: udm limit --group %s --read-iops N", l.Group, l.Group)
	}
	before := s.state.Limit(d)
	s.state.SetLimit(d, saved)
	if err := s.state.Save(d); err != nil {
		s.state.SetLimit(d, before)
		return err
	}
	s.throttle(d, saved)
	return nil
}

// limitGroup changes the limit of a group, or removes a group without devices.
func (s *Service) limitGroup(l ctl.Limit) error {
	groups := s.state.Groups()
	if l.None() {
		for _, d := range s.control.List() {
			if s.state.Limit(d).Group == l.Group {
				return dm.Errorf(syscall.EBUSY, "%s belongs to the group %s; take it out first: udm limit %s --remove", d.Name(), l.Group, d.Name())
			}
		}
		delete(groups, l.Group)
	} else {
		groups[l.Group] = state.Limit{Read: state.Rate(l.Read), Write: state.Rate(l.Write)}
	}
	if err := s.state.SaveGroups(groups); err != nil {
		return err
	}
	s.setGroups(groups)
	return nil
}

// setGroups makes the throttles of groups what was saved.
func (s *Service) setGroups(saved map[string]state.Limit) {
	var gone []*dm.Throttle
	s.limits.mu.Lock()
	for name, l := range saved {
		t := s.limits.groups[name]
		if t == nil {
			t = dm.NewThrottle(s.env)
			s.limits.groups[name] = t
		}
		t.Set(rates(l))
	}
	for name, t := range s.limits.groups {
		if _, ok := saved[name]; !ok {
			delete(s.limits.groups, name)
			gone = append(gone, t)
		}
	}
	s.limits.mu.Unlock()
	closeAll(gone)
}

// closeAll lets pass what waits in throttles. No lock is held.
func closeAll(ts []*dm.Throttle) {
	for _, t := range ts {
		t.Close()
	}
}

// throttle puts a limit in force.
func (s *Service) throttle(d *dm.Device, l state.Limit) {
	var gone []*dm.Throttle
	s.limits.mu.Lock()
	var chain []*dm.Throttle
	own := s.limits.own[d]
	bounded := l.Read != (state.Rate{}) || l.Write != (state.Rate{})
	switch {
	case bounded && own == nil:
		own = dm.NewThrottle(s.env)
		s.limits.own[d] = own
	case !bounded && own != nil:
		delete(s.limits.own, d)
		gone = append(gone, own)
	}
	if bounded {
		own.Set(rates(l))
		chain = append(chain, own)
	}
	if g := s.limits.groups[l.Group]; g != nil {
		chain = append(chain, g)
	}
	d.Throttle(chain...)
	s.limits.mu.Unlock()
	closeAll(gone)
}

// restoreLimits puts what was saved in force.
func (s *Service) restoreLimits() error {
	groups, err := s.state.RestoreGroups()
	s.setGroups(groups)
	for _, d := range s.control.List() {
		if l := s.state.Limit(d); l != (state.Limit{}) {
			s.throttle(d, l)
		}
	}
	return err
}

// forgetLimits drops the throttles of devices that are gone.
func (s *Service) forgetLimits() {
	var gone []*dm.Throttle
	s.limits.mu.Lock()
	for d, t := range s.limits.own {
		if now, err := s.control.Number(d.Number()); err != nil || now != d {
			delete(s.limits.own, d)
			gone = append(gone, t)
		}
	}
	s.limits.mu.Unlock()
	closeAll(gone)
}

// endLimits lets pass whatever waits, and all that comes.
func (s *Service) endLimits() {
	s.limits.mu.Lock()
	gone := slices.AppendSeq(slices.Collect(maps.Values(s.limits.own)), maps.Values(s.limits.groups))
	clear(s.limits.own)
	clear(s.limits.groups)
	s.limits.mu.Unlock()
	closeAll(gone)
}

func rates(l state.Limit) dm.Rates { return dm.Rates{Read: rate(l.Read), Write: rate(l.Write)} }

func rate(r state.Rate) dm.Rate {
	return dm.Rate{IOs: dm.Bucket{PerSecond: r.IOPS, Burst: r.IOPSBurst}, Bytes: dm.Bucket{PerSecond: r.Bytes, Burst: r.BytesBurst}}
}

// Limits implements [ctl.Service].
func (s *Service) Limits(context.Context) ([]ctl.Limit, error) {
	list := make([]ctl.Limit, 0)
	for name, l := range s.state.Groups() {
		list = append(list, ctl.Limit{Group: name, Read: ctl.Rate(l.Read), Write: ctl.Rate(l.Write)})
	}
	for _, d := range s.control.List() {
		if l := s.state.Limit(d); l != (state.Limit{}) {
			list = append(list, ctl.Limit{Device: d.Name(), Group: l.Group, Read: ctl.Rate(l.Read), Write: ctl.Rate(l.Write)})
		}
	}
	slices.SortFunc(list, func(a, b ctl.Limit) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.Group, b.Group))
	})
	return list, nil
}
