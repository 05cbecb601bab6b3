package dm

import "syscall"

// ENOKEY is the errno of a table whose key is missing: macOS has no errno of that name.
const ENOKEY = syscall.ENEEDAUTH
