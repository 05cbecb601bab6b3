//go:build !darwin

package dm

import "syscall"

// ENOKEY is the errno of a table whose key is missing.
const ENOKEY = syscall.ENOKEY
