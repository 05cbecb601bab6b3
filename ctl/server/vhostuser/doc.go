// Package vhostuser offers devices to virtual machines: each export is a Unix socket
// on which one front end at a time has the device as vhost-user-blk (package
// export/vhost).
//
// Exports are saved in ROOT/exports.json by minor number and restored when the daemon
// starts again. A device is open only while a front end is connected. Removing a
// device removes its exports.
//
// A daemon that is replaced hands the sockets and the connections of a group of devices to
// the next one: Sockets.Hand.
//
//	missing ── the socket is made ──► served ── unexport, or the device is removed ──► forgotten
//	   ▲                                │
//	   └──────── the daemon ends ───────┘
//
// Lock order: Sockets.op (an env.Mutex, held while the list changes and is saved),
// then the locks of device-mapper commands. It is not held while waiting for requests
// of a front end.
package vhostuser
