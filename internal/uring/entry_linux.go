package uring

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Entry is a submission queue entry (struct io_uring_sqe). One of its methods prepares it.
type Entry struct {
	opcode uint8
	flags  uint8
	ioprio uint16
	fd     int32
	off    uint64 // a command has its number in the first four bytes
	addr   uint64
	len    uint32
	rw     uint32 // flags of the operation
	User   uint64 // returned in the completion
	index  uint16
	_      uint16
	_      uint32
	cmd    [16]byte // 80 bytes in a big entry
}

const (
	opReadv   = 1
	opWritev  = 2
	opPollAdd = 6
	opCommand = 46

	pollMulti = 1
)

// Readv prepares a read at byte offset off into v.
func (e *Entry) Readv(fd int, v []unix.Iovec, off int64) { e.transfer(opReadv, fd, v, off) }

// Writev prepares a write of v at byte offset off.
func (e *Entry) Writev(fd int, v []unix.Iovec, off int64) { e.transfer(opWritev, fd, v, off) }

func (e *Entry) transfer(op uint8, fd int, v []unix.Iovec, off int64) {
	e.opcode, e.fd, e.off = op, int32(fd), uint64(off)
	e.addr, e.len = uint64(uintptr(unsafe.Pointer(unsafe.SliceData(v)))), uint32(len(v))
}

// poll prepares a request that completes each time fd becomes readable.
func (e *Entry) poll(fd int) {
	e.opcode, e.fd = opPollAdd, int32(fd)
	e.len, e.rw = pollMulti, unix.POLLIN
}

// Command prepares a driver-specific command for fd with 16 bytes of payload.
func (e *Entry) Command(fd int, number uint32, cmd [16]byte) {
	e.opcode, e.fd = opCommand, int32(fd)
	e.off, e.cmd = uint64(number), cmd
}

// BigCommand is Command with 80 bytes of payload. The ring must have big entries.
func (e *Entry) BigCommand(fd int, number uint32, cmd [80]byte) {
	e.opcode, e.fd = opCommand, int32(fd)
	e.off = uint64(number)
	*(*[80]byte)(unsafe.Pointer(&e.cmd)) = cmd
}
