package metrics

import "golang.org/x/sys/unix"

// spaceOf returns the usage of a directory's file system.
func spaceOf(dir string) (space, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return space{}, err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return space{}, err
	}
	block := uint64(fs.Bsize)
	return space{id: st.Dev, free: fs.Bavail * block, size: fs.Blocks * block}, nil
}
