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
//	systemd    what a service manager is told, and the sockets that it passes on
//
// Here is what makes a daemon of them: the lock of its root, the sockets, the list
// of front ends, and the order in which all that begins and ends:
//
//	locked ── service made, control protocol started ──► restoring
//	restoring ── every table is loaded that can be ──► restored ── the other front ends started ──► ready
//	any ── ctx ends, or a front end fails ──► front ends drained ──► service closed
//	                 └── what takes too long is given up, and told ──► ended
//
// No front end serves I/O before the first round of the restart is over, so that
// nobody writes to an origin whose snapshot is about to come; the control protocol
// answers questions from the first moment, and commands that change something wait.
package server
