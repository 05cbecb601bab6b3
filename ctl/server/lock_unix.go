//go:build unix

package server

import (
	"os"
	"syscall"
)

// lockFile locks an open file for this process, until the file is closed.
func lockFile(f *os.File) error {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}
