package nbddev

import (
	"context"
	"crypto/tls"
	"io"
	"sync"
	"time"

	"udm/blk"
	"udm/blk/nbdclient"
	"udm/env"
)

// Depth is the maximum number of bios in flight.
const Depth = 128

const defaultConnections = 4

// Dialer connects to the server. It must return soon after the context ends.
type Dialer func(context.Context) (io.ReadWriteCloser, error)

// Options describe the disk and its server.
type Options struct {
	Name   string // name of the disk for people; the URI
	Dial   Dialer
	Export string
	TLS    func() (*tls.Config, error) // for each connection; nil: plain text

	Connections int           // maximum, if the server allows several; 0: 4
	Timeout     time.Duration // for a bio to end; 0: none
	Buffer      int           // bytes of unflushed writes to keep; 0: 32 MiB
	Path        bool          // bios fail while the connection is broken: see the package comment
}

// minBuffer leaves room for a write while half of the buffer is in use.
const minBuffer = 4 * maxWrite

// Timeouts of the device.
const (
	answerTime = 10 * time.Second // to make a connection
	repeatTime = 60 * time.Second // for each batch of replayed writes
	graceTime  = 5 * time.Second  // that Close waits for bios
	firstDelay = 100 * time.Millisecond
	lastDelay  = 10 * time.Second
)

// Device is a disk at an NBD server.
type Device struct {
	env  env.Env
	o    Options
	wait env.Wait // woken when a bio may be admitted, or sent changes

	links, ends, clock             env.Queue
	connect, deliver, tick, giveUp *env.Work

	// Set by Open.
	limits blk.Limits // without Size
	name   string     // the server's name for the export
	keeps  bool       // the server has a cache and is writable

	mu         sync.Mutex
	session    *session      // guarded by mu; the latest
	up         bool          // guarded by mu; bios go to session
	closing    bool          // guarded by mu
	offline    bool          // guarded by mu; closing, without waiting any more
	refused    bool          // guarded by mu; the last attempt found another export
	why        string        // guarded by mu; the last problem
	reconnects uint64        // guarded by mu
	delay      time.Duration // guarded by mu; before the next attempt
	size       uint64        // guarded by mu
	slots      [Depth]request
	idle       []*request    // guarded by mu; free slots
	waiting    []*request    // guarded by mu; for a connection
	sent       int           // guarded by mu; bios passed to clients, including the device's own
	next       int           // guarded by mu; counts requests, to spread them
	ended      blk.List      // guarded by mu; for deliver
	ticking    bool          // guarded by mu; tick is armed
	kept       kept          // guarded by mu
	lost       bool          // guarded by mu; the next flush fails
	flushing   bool          // guarded by mu; flush is in flight
	blocked    int           // guarded by mu; waiting submitters
	flush      blk.Bio       // the device's own
	flushUpTo  uint64        // guarded by mu; the last entry that it covers
	flushSince time.Duration // guarded by mu; when it was submitted
}

// request is a bio in progress.
type request struct {
	d     *Device
	bio   *blk.Bio
	below blk.Bio       // the bio passed to a client
	since time.Duration // when it was submitted
	room  int           // reserved in kept
	upTo  uint64        // for a flush: the last entry that it covers
	sent  bool          // guarded by Device.mu; passed to a client
}

// Open connects to the server, or fails.
func Open(e env.Env, o Options) (*Device, error) {
	d := &Device{env: e, o: o, wait: e.NewWait()}
	d.kept.limit = max(orDefault(o.Buffer, 32<<20), minBuffer)
	d.o.Connections = orDefault(o.Connections, defaultConnections)
	d.links, d.ends, d.clock = e.NewQueue("nbd links"), e.NewQueue("nbd ends"), e.NewQueue("nbd clock")
	d.connect, d.deliver = env.NewWork(d.reconnect), env.NewWork(d.deliverEnded)
	d.tick, d.giveUp = env.NewWork(d.lookAtTimes), env.NewWork(d.stopSession)
	for i := range d.slots {
		d.slots[i].d = d
		d.idle = append(d.idle, &d.slots[i])
	}
	err := d.attach(true)
	if err != nil && d.o.Connections < orDefault(o.Connections, defaultConnections) {
		err = d.attach(true) // with as many connections as the server accepts
	}
	if err != nil {
		d.clock.Close()
		return nil, err
	}
	return d, nil
}

func orDefault(n, def int) int {
	if n <= 0 {
		return def
	}
	return n
}

// Limits implements [blk.Device].
func (d *Device) Limits() blk.Limits {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.limits
	l.Size = d.size
	return l
}

func (d *Device) String() string { return d.o.Name }

// Report implements [blk.Reporter].
func (d *Device) Report() blk.Report {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := blk.Report{State: "connecting", Why: d.why, UnderWay: Depth - len(d.idle), Reconnects: d.reconnects}
	for _, e := range d.kept.live() {
		r.Unflushed += uint64(len(e.data))
	}
	switch {
	case d.up:
		r.State, r.Connections = "connected", len(d.session.clients)
	case d.refused:
		r.State = "refused"
	}
	return r
}

// Extents is the server's allocation map. Without a connection everything is data.
func (d *Device) Extents(sector, sectors uint64) ([]blk.Extent, error) {
	d.mu.Lock()
	var c *nbdclient.Client
	if d.up && !d.closing {
		c = d.session.clients[0]
	}
	d.mu.Unlock()
	if c == nil {
		return blk.AllData(sector, sectors), nil
	}
	list, err := c.Extents(sector, sectors)
	if err != nil {
		return blk.AllData(sector, sectors), nil
	}
	return list, nil
}

// Close implements [blk.Device].
func (d *Device) Close() error {
	d.mu.Lock()
	d.closing = true
	d.offline = !d.up
	d.mu.Unlock()
	if d.isOffline() {
		d.stopSession()
	} else {
		d.clock.QueueAfter(d.giveUp, graceTime)
		d.wait.Until(d.quiet)
	}
	d.mu.Lock()
	d.offline, d.up = true, false
	for _, r := range d.waiting {
		d.endLocked(r, blk.Offline)
	}
	d.waiting = nil
	d.mu.Unlock()
	d.links.Cancel(d.connect)
	d.links.Close()
	d.session.close()
	d.clock.Close()
	d.ends.Close()
	return nil
}

func (d *Device) isOffline() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.offline
}

// quiet reports whether no bio is passed to a client.
func (d *Device) quiet() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sent == 0
}

// stopSession breaks the connections: see giveUp.
func (d *Device) stopSession() {
	d.mu.Lock()
	s := d.session
	d.mu.Unlock()
	s.stop()
}
