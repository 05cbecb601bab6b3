package fs

import (
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// inOwnMounts tells that ownMounts is done.
const inOwnMounts = "UDM_TEST_OWN_MOUNTS"

// ownMounts runs this program, if root runs it, in a mount namespace of its own. Any
// unshare of a test beside this one copies the mounts that it sees; a device is in use
// until the copy is gone too, even if its owner has unmounted it.
func ownMounts() {
	if os.Geteuid() != 0 {
		return
	}
	if os.Getenv(inOwnMounts) != "" {
		dropCopies()
		return
	}
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		return // needs says so
	}
	self, err := os.Executable()
	if err == nil {
		args := append([]string{unshare, "--mount", "--propagation", "private", self}, os.Args[1:]...)
		err = syscall.Exec(unshare, args, append(os.Environ(), inOwnMounts+"=1"))
	}
	panic(err)
}

// dropCopies unmounts what the tests beside this one had mounted when the namespace
// was made.
func dropCopies() {
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		panic(err)
	}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if strings.HasPrefix(words[0], "/dev/loop") || strings.HasPrefix(words[2], "fuse.") {
			_ = unix.Unmount(words[1], unix.MNT_DETACH)
		}
	}
}
