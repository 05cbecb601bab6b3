// Package delay is the target "delay": it delays I/O, and may send reads, writes and
// flushes to different devices (drivers/md/dm-delay.c).
//
//	delay DEVICE OFFSET MS [DEVICE OFFSET MS [DEVICE OFFSET MS]]
//
// The manual is [Type]'s Doc.
//
// Map appends a clone that must wait to the list of its class, whose order is therefore
// that of the deadlines, and arms the work for the earliest deadline of all. The work
// issues the clones that are due; a suspend issues all of them at once:
//
//	Map ─ delay 0, or suspending ─► issued
//	 └──► waiting ─ deadline passed, or presuspend ─► issued
//
// Lock order: mu is a leaf.
package delay

import (
	"sync"
	"time"

	"udm/blk"
	"udm/dm"
	"udm/env"
	"udm/targets/internal/segment"
)

// Type returns the target type, for dm.NewControl.
func Type() *dm.Type {
	return &dm.Type{Name: "delay", Version: [3]uint32{1, 3, 0}, New: construct,
		Parse: dm.Parser(ParseLine), ParseStatus: dm.StatusParser(ParseStatus), Doc: doc}
}

const doc = `delay: I/O is held back for a time

Table:
  delay DEVICE OFFSET MS
  delay DEVICE OFFSET MS DEVICE OFFSET MS
  delay DEVICE OFFSET MS DEVICE OFFSET MS DEVICE OFFSET MS
    DEVICE   a device below
    OFFSET   the sector of DEVICE where the target's first sector lies
    MS       milliseconds that an I/O waits before it goes to DEVICE
  One group is for all I/O. Of two, the first is for reads and the second for
  everything else. Of three, the third is for flushes.

Status (dmsetup status):
  READS WRITES FLUSHES
    how many of each kind wait now

Messages:
  none

A suspend lets all that waits go at once, and nothing waits until the resume.

Example: a disk whose writes take half a second
  0 2097152 delay /srv/a.img 0 0 /srv/a.img 0 500
`

const (
	read = iota
	write
	flush
	classes
)

// class is one kind of I/O: the device that it goes to, and the delay.
type class struct {
	segment.Segment
	delay time.Duration
	list  dm.CloneList // guarded by delay.mu; waiting clones, in order
	count int          // guarded by delay.mu; length of list
}

type delay struct {
	target *dm.Target
	groups int // in the table line
	class  [classes]class
	queue  env.Queue
	work   *env.Work // issueDue

	mu    sync.Mutex
	on    bool          // guarded by mu; clones may wait
	armed bool          // guarded by mu; work runs at next
	next  time.Duration // guarded by mu
}

// deadline is the target's data for a clone: when a clone that waits is issued.
type deadline struct{ at time.Duration }

func construct(t *dm.Target, args []string) (dm.Mapper, error) {
	l, wrong := ParseLine(args)
	if l == nil {
		return nil, wrong
	}
	d := &delay{target: t, groups: len(args) / 3, on: true}
	for i := range d.class {
		g := min(i, d.groups-1)
		if g == len(l.Groups) {
			return nil, wrong
		}
		if err := d.class[i].open(t, l.Groups[g]); err != nil {
			return nil, err
		}
	}
	t.NumFlush, t.NumDiscard = 1, 1
	t.AccountsIssue = true
	d.queue = t.Env().NewQueue("dm-delay")
	d.work = env.NewWork(func() { d.issue(d.due(false)) })
	return d, nil
}

func (c *class) open(t *dm.Target, g Group) (err error) {
	c.delay = time.Duration(g.Milliseconds) * time.Millisecond
	c.Segment, err = segment.Open(t, g.Place, "Device lookup failed")
	return err
}

// Close finds no waiting clones: Presuspend has issued them all.
func (d *delay) Close() { d.queue.Close() }

func (d *delay) NewPerIO() any { return new(deadline) }

func (d *delay) Map(c *dm.Clone) dm.Outcome {
	cl := &d.class[classOf(c.Op)]
	cl.Map(c)
	if cl.delay == 0 || !d.hold(c, cl) {
		return dm.Remapped
	}
	return dm.Submitted
}

func classOf(op blk.Op) int {
	switch op {
	case blk.Read:
		return read
	case blk.Flush:
		return flush
	}
	return write
}

// hold makes c wait, and reports whether it does: while the target is off, clones do not
// wait.
func (d *delay) hold(c *dm.Clone, cl *class) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.on {
		return false
	}
	at := d.target.Env().Now() + cl.delay
	c.PerIO.(*deadline).at = at
	cl.list.Push(c)
	cl.count++
	d.armLocked(at)
	return true
}

// armLocked makes the work run at the time at, unless it will run earlier anyway.
func (d *delay) armLocked(at time.Duration) {
	if d.armed && d.next <= at {
		return
	}
	d.armed, d.next = true, at
	d.queue.QueueAfter(d.work, at-d.target.Env().Now())
}

// due removes the clones that are due from the lists, or all clones, and arms the work
// for the rest.
func (d *delay) due(all bool) (out dm.CloneList) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.armed = false
	now := d.target.Env().Now()
	for i := range d.class {
		cl := &d.class[i]
		for c := cl.list.Pop(); c != nil; c = cl.list.Pop() {
			if at := c.PerIO.(*deadline).at; at > now && !all {
				cl.list.PushHead(c)
				d.armLocked(at)
				break
			}
			cl.count--
			out.Push(c)
		}
	}
	return out
}

func (d *delay) issue(list dm.CloneList) {
	for c := list.Pop(); c != nil; c = list.Pop() {
		c.Issue()
	}
}

// Presuspend issues all waiting clones.
func (d *delay) Presuspend() {
	d.turn(false)
	d.queue.Cancel(d.work)
	d.issue(d.due(true))
}

// Resume makes I/O wait again. After a suspend that gives up, I/O does not wait until
// the next resume, as in Linux.
func (d *delay) Resume() { d.turn(true) }

func (d *delay) turn(on bool) {
	d.mu.Lock()
	d.on = on
	d.mu.Unlock()
}

func (d *delay) Status(kind dm.StatusKind, _ dm.StatusFlags) string {
	if kind == dm.Info {
		d.mu.Lock()
		defer d.mu.Unlock()
		return (&Status{d.class[read].count, d.class[write].count, d.class[flush].count}).String()
	}
	l := &Line{}
	for i := range d.groups {
		c := &d.class[i]
		l.Groups = append(l.Groups, Group{c.Place(), uint32(c.delay / time.Millisecond)})
	}
	return l.String()
}

func (d *delay) Areas() []dm.Area {
	as := make([]dm.Area, classes)
	for i := range as {
		as[i] = d.class[i].Area(d.target.Len)
	}
	return as
}
