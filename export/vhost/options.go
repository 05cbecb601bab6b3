package vhost

import (
	"errors"
	"log/slog"
	"time"

	"udm/export"
)

// Config configures a server.
type Config struct {
	// Exports contains the device, under Name.
	Exports export.Exports
	Name    string
	// Queues is the number of rings that a guest may use; 0: one for each processor,
	// at most 8.
	Queues int
	// Split offers no packed rings.
	Split bool
	// Serial is the disk's serial number for the guest: at most 20 bytes.
	Serial string
	// StallTimeout ends a connection whose front end stops in the middle of a message
	// or does not read replies. 0: one minute.
	StallTimeout time.Duration
	// Poll is the longest time for which the worker of a ring watches it before sleeping.
	// It does so only while requests follow each other more closely. 0: 32 µs, or none on
	// fewer than 4 processors; negative: none.
	Poll time.Duration
	// Log receives one line for each connection that ends with an error; nil: no log.
	Log *slog.Logger
}

const maxQueues = 64

func (c *Config) setDefaults(processors int) {
	if c.Queues == 0 {
		c.Queues = min(processors, 8)
	}
	c.Queues = max(1, min(c.Queues, maxQueues))
	if c.StallTimeout == 0 {
		c.StallTimeout = time.Minute
	}
	if c.Poll == 0 && spare(processors) > 0 {
		c.Poll = pollLimit
	}
	c.Poll = max(0, c.Poll)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// ErrClosed is what Serve returns after Close.
var ErrClosed = errors.New("vhost: server closed")
