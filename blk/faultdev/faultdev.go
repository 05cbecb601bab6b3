// Package faultdev makes a device fail or delay bios by rules, which can be
// changed while it runs. The first rule that matches a bio applies; without one
// the bio passes unchanged and at no cost.
//
// To simulate a power cut put it over a memdev with a volatile cache:
// [Device.Crash] removes the disk while bios are in flight, then
// memdev.CrashClone draws the content of the medium.
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

// Rule defines what happens to some bios. The zero value lets them pass.
type Rule struct {
	// Which bios: those that meet all conditions.
	Ops             []blk.Op  // none: all
	Flags           blk.Flags // all of these are set
	Sector, Sectors uint64    // the range touches this one; Sectors 0: no condition, flushes included
	Skip            int       // number of matches that pass first
	Count           int       // number of bios affected after that; 0: all
	Percent         int       // chance in percent that a match is affected; 0: all

	// What happens: first the delay, then the failure.
	Delay   time.Duration
	Status  blk.Status // OK: the bio goes on to the device
	Reached bool       // the bio goes on to the device and fails on the way back
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
	queue env.Queue // runs delayed bios
	wait  env.Wait  // woken when delayed shrinks

	active atomic.Bool // a rule is set, or the device has crashed

	mu      sync.Mutex
	rng     *rand.Rand          // guarded by mu
	rules   []*ruleState        // guarded by mu
	delayed map[*delay]struct{} // guarded by mu; bios not due yet
	seq     uint64              // guarded by mu; counts delays
	crashed bool                // guarded by mu
}

type ruleState struct {
	Rule
	seen, hits int
}

// New returns a device without rules. Randomness comes from seed, time from e.
func New(e env.Env, lower blk.Device, seed uint64) *Device {
	return &Device{
		lower: lower, env: e, queue: e.NewQueue("fault " + lower.String()), wait: e.NewWait(),
		rng: rand.New(rand.NewPCG(seed, 0x6661756c74)), delayed: make(map[*delay]struct{}),
	}
}

// SetRules replaces the rules and resets their counts. Bios already delayed stay
// delayed.
func (d *Device) SetRules(rules ...Rule) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rules = nil
	for _, r := range rules {
		d.rules = append(d.rules, &ruleState{Rule: r})
	}
	d.active.Store(len(rules) > 0 || d.crashed)
}

// Hits returns how many bios rule i has affected.
func (d *Device) Hits(i int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rules[i].hits
}

// Crash removes the device for good: delayed and later bios end with Offline and
// never reach the device below.
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

// Submit passes b on, or applies the rules to it.
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

// pick finds the rule that applies to b and counts it.
func (d *Device) pick(b *blk.Bio) *Rule {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.crashed {
		return &offline
	}
	for _, r := range d.rules {
		if r.matches(b) && d.appliesLocked(r) {
			r.hits++
			return &r.Rule
		}
	}
	return nil
}

func (d *Device) appliesLocked(r *ruleState) bool {
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
