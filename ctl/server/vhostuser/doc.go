// Package vhostuser gives devices to virtual machines: each export is a Unix socket
// where one front end at a time has the device as vhost-user-blk (package
// export/vhost).
//
// Exports are saved in ROOT/exports.json, under the minor numbers of their devices,
// and come back when the daemon starts again. A device is open only while a front end
// is connected; one that is removed takes its exports along.
//
//	missing ── the socket is made ──► served ── unexport, or the device has gone ──► forgotten
//	   ▲                                │
//	   └──────── the daemon ends ───────┘
//
// Lock order: Sockets.op (an env.Mutex, held while the list changes and is saved),
// then what device-mapper commands take. Nobody holds it while waiting for a
// front end's requests.
package vhostuser
