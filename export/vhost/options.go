package vhost

import (
	"errors"
	"log/slog"
	"time"

	"udm/export"
)

// Config is what a server is made from.
type Config struct {
	// Exports has the device, by Name.
	Exports export.Exports
	Name    string
	// Queues is how many rings a guest may use; 0: one for each processor, at
	// most 8.
	Queues int
	// Serial is what the guest sees as the disk's serial number: at most 20 bytes.
	Serial string
	// StallTimeout ends a connection whose front end stops in the middle of a
	// message or takes no answer. 0: a minute.
	StallTimeout time.Duration
	// Log gets one line for each connection that ends in an error; nil: none.
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
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// ErrClosed is what Serve returns after Close.
var ErrClosed = errors.New("vhost: server closed")
