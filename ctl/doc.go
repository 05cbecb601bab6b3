// Package ctl is the daemon's control protocol and a client for it.
//
// The protocol is HTTP with JSON on a Unix socket, ROOT/control.sock. Each command is
// a POST of one JSON object to /v1/COMMAND. It is answered by one JSON value, or by
// an [Error] with a status of 400 or more. The commands are those of the kernel's
// dm-ioctl.c and return its errors; docs/control-protocol.md lists them for users of
// other languages.
//
//	curl --unix-socket control.sock http://udm/v1/list -d '{"with":["table","status"]}'
//
// Sizes and addresses are in sectors of 512 bytes.
package ctl
