// Package server is the daemon: a set of mapped devices that is controlled over a
// Unix socket (package ctl), served to clients, and kept across restarts. Its rooms:
//
//	service    the devices and the commands about them
//	state      what is saved of them, and the restart
//	attach     what this machine's kernel shows of them: files, block devices
//	exports    the devices as exports of servers
//	events     what happens to them, for subscribers
//	frontend   what all ways in to them have in common
//	protocol   the control protocol's handler
//
// Here is what makes a daemon of them: the lock of its root, the sockets, the list
// of front ends, and the order in which all that begins and ends:
//
//	locked ── service made, restored ──► restored ── front ends started ──► ready
//	ready ── ctx ends, or a front end fails ──► front ends drained ──► service closed
//
// No front end serves before the first round of the restart is over, so that nobody
// writes to an origin whose snapshot is about to come.
package server
