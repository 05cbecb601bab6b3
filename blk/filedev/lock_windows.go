package filedev

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// lockByte lies beyond all data, because a lock on Windows also prevents others
// from reading.
const lockByte = 1<<63 - 1

func lock(f *os.File) error {
	at := &windows.Overlapped{Offset: lockByte & (1<<32 - 1), OffsetHigh: lockByte >> 32}
	err := windows.LockFileEx(windows.Handle(f.Fd()),
		windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, at)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return ErrInUse
	}
	return err
}
