// Package fs tests udm below real file systems: the daemon runs as a process of
// its own, its devices are attached as loop devices or mounted as files, and
// mkfs, mount, stress-ng, fio, fstrim and fsck do the rest. What needs root and
// loop devices tells in one line when they are missing, and fails when CI is set.
//
//	go test ./test/fs                       # each thing twice, some minutes
//	go test ./test/fs -times 20 -timeout 1h # 20 times in a row
//	go test ./test/fs -short                # one file system of each kind
//
// Tests end everything they start: file systems are unmounted, loop devices
// detached, daemons ended, also when they fail.
package fs
