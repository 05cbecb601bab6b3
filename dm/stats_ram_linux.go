package dm

import "golang.org/x/sys/unix"

// totalRAM is the machine's memory in bytes.
func totalRAM() uint64 {
	var si unix.Sysinfo_t
	if unix.Sysinfo(&si) != nil {
		return 4 << 30
	}
	return uint64(si.Totalram) * uint64(si.Unit)
}
