// Package server is the daemon: a set of mapped devices that is controlled over a
// Unix socket (package ctl), served to clients, and kept across restarts. Its
// packages:
//
//	service    the devices and the commands on them
//	state      what is saved, and restoring it
//	attach     files and block devices of this machine's kernel
//	vhostuser  sockets for virtual machines
//	exports    the devices as exports of servers
//	events     events for subscribers
//	frontend   what all front ends have in common
//	protocol   the control protocol's handler
//	metrics    metrics for Prometheus
//	systemd    notifications to a service manager, and sockets from it
//
// This package combines them: the lock of the root, the sockets, the list of front
// ends, and the order in which everything starts and stops:
//
//	locked ── service created, control protocol started ──► restoring
//	restoring ── all tables loaded that can be ──► restored ── other front ends started ──► ready
//	any ── ctx ends, or a front end fails ──► front ends drained ──► service closed
//	                 └── what takes too long is abandoned and reported ──► ended
//
// No front end serves I/O before the first round of restoring is complete, so that
// nobody writes to an origin whose snapshot is not there yet. The control protocol
// answers queries from the first moment; commands that change something wait.
package server
