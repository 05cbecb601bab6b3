// Package faultdev makes a device fail and dawdle by rules, which can be
// changed while it runs. The first rule that matches a bio decides; without
// one the bio passes unchanged and at no cost.
//
// For power cuts put it over a memdev with a volatile cache: [Device.Crash]
// takes the disk away in the middle of what is under way, then
// memdev.CrashClone draws what the platters hold.
//
// Lock order: mu is a leaf; nothing is submitted or completed under it.
package faultdev

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"udm/blk"
	"udm/env"
)

// Rule tells what happens to some bios. The zero value lets all pass.
type Rule struct {
	// Which bios: all conditions hold.
	Ops             []blk.Op  // none: all
	Flags           blk.Flags // all of these are set
	Sector, Sectors uint64    // the range touches this one; Sectors 0: no condition, flushes included
	Skip            int       // the first so many matches pass
	Count           int       // then so many are hit; 0: all
	Percent         int       // of those, so many in a hundred, by chance; 0: all

	// What happens: first the delay, then the failure.
	Delay   time.Duration
	Status  blk.Status // OK: it goes on to the device
	Reached bool       // it goes on to the device and fails on the way back
}

func (r *Rule) matches(b *blk.Bio) bool {
	if len(r.Ops) > 0 && !slices.Contains(r.Ops, b.Op) || b.Flags&r.Flags != r.Flags {
		return false
	}
	return r.Sectors == 0 || b.Op != blk.Flush && b.Sector < r.Sector+r.Sectors && r.Sector < b.EndSector()
}

// Device is a device with faults. It owns the one below.
type Device struct {
	lower blk.Device
	env   env.Env
	queue env.Queue // runs what was delayed
	wait  env.Wait  // woken when delayed falls

	active atomic.Bool // there is a rule, or the device has crashed

	mu      sync.Mutex
	rng     *rand.Rand          // guarded by mu
	rules   []*ruleState        // guarded by mu
	delayed map[*delay]struct{} // guarded by mu; bios whose time has not come
	seq     uint64              // guarded by mu; counts delays
	crashed bool                // guarded by mu
}

type ruleState struct {
	Rule
	seen, hits int
}

// New returns a device without rules. Chance comes from seed, time from e.
func New(e env.Env, lower blk.Device, seed uint64) *Device {
	return &Device{
		lower: lower, env: e, queue: e.NewQueue("fault " + lower.String()), wait: e.NewWait(),
		rng: rand.New(rand.NewPCG(seed, 0x6661756c74)), delayed: make(map[*delay]struct{}),
	}
}

// SetRules replaces the rules and starts their counts anew. What is delayed
// already stays so.
func (d *Device) SetRules(rules ...Rule) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rules = nil
	for _, r := range rules {
		d.rules = append(d.rules, &ruleState{Rule: r})
	}
	d.active.Store(len(rules) > 0 || d.crashed)
}

// Hits tells how many bios rule i has hit.
func (d *Device) Hits(i int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rules[i].hits
}

// Crash takes the device away for good: what is delayed and what comes later
// ends with Offline and never reaches the device below.
func (d *Device) Crash() {
	d.mu.Lock()
	d.crashed = true
	d.active.Store(true)
	var lost []*delay
	for w := range d.delayed {
		lost = append(lost, w)
	}
	slices.SortFunc(lost, func(a, b *delay) int { return int(int64(a.seq - b.seq)) })
	d.mu.Unlock()
	for _, w := range lost {
		if d.queue.Cancel(&w.work) {
			w.run()
		}
	}
}

// Submit passes b on, or does to it what the rules say.
func (d *Device) Submit(b *blk.Bio) {
	if !d.active.Load() {
		d.lower.Submit(b)
		return
	}
	switch r := d.pick(b); {
	case r == nil:
		d.lower.Submit(b)
	case r.Delay > 0:
		d.postpone(b, *r)
	default:
		d.apply(b, *r)
	}
}

var offline = Rule{Status: blk.Offline}

// pick finds the rule that hits b and counts it.
func (d *Device) pick(b *blk.Bio) *Rule {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.crashed {
		return &offline
	}
	for _, r := range d.rules {
		if r.matches(b) && d.hitLocked(r) {
			r.hits++
			return &r.Rule
		}
	}
	return nil
}

func (d *Device) hitLocked(r *ruleState) bool {
	r.seen++
	if r.seen <= r.Skip || r.Count > 0 && r.hits >= r.Count {
		return false
	}
	return r.Percent == 0 || d.rng.IntN(100) < r.Percent
}

func (d *Device) apply(b *blk.Bio, r Rule) {
	switch {
	case r.Status == blk.OK:
		d.lower.Submit(b)
	case r.Reached:
		c := &blk.Bio{End: func(*blk.Bio) { b.Complete(r.Status) }}
		c.CloneFrom(b)
		d.lower.Submit(c)
	default:
		b.Complete(r.Status)
	}
}
