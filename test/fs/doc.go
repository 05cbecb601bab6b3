// Package fs tests udm below real file systems: the daemon runs as a process of
// its own, its devices are attached as loop devices or mounted as files, and
// mkfs, mount, stress-ng, fio, fstrim and fsck do the rest. What needs root and
// loop devices tells in one line when they are missing, and fails when CI is set.
//
//	go test ./test/fs                             # each stack with one file system
//	go test ./test/fs -all -times 20 -timeout 2h  # all with all, 20 times in a row
//
// Tests end everything they start: file systems are unmounted, loop devices
// detached, daemons ended, also when they fail.
package fs
