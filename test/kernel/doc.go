// Package kernel boots a real Linux kernel as an ordinary process and uses it as the judge of udm.
//
// The kernel is Debian's package user-mode-linux (/usr/bin/linux, Linux 6.1), with every device-mapper module below
// /usr/lib/uml/modules. It needs neither privileges nor KVM, and boots in about two seconds. The host's root file
// system is its root, mounted read-only; dmsetup, thin_check, mkfs and the rest are the host's own.
//
// # Booting a script
//
// Boot runs one shell script as root inside the kernel and gives back what it printed. Tests of the persistent formats
// use it to let the kernel read and change what udm wrote:
//
//	store := filepath.Join(t.TempDir(), "cow")    // written by udm; origin likewise
//	r := kernel.Boot(t, kernel.Options{
//		Disks: []string{origin, store},           // seen inside as $D0 and $D1 (/dev/ubda, /dev/ubdb)
//		Script: `
//			n=$(blockdev --getsz $D0)
//			dmsetup create snap --table "0 $n snapshot $D0 $D1 P 8"
//			dmsetup status snap
//			dd if=/dev/mapper/snap of=$OUT/content bs=1M iflag=direct status=none
//			dd if=/dev/urandom of=/dev/mapper/snap bs=4k count=3 seek=7 oflag=direct status=none
//			dmsetup remove snap`,
//	})
//	// r.Output is what the script printed, filepath.Join(r.Dir, "content") is the file it wrote.
//	// The disk files hold what the kernel left in them: read them with udm again.
//
// The script runs under "sh -eu": the first command that fails ends it, and Boot then fails the test with the output.
// Inside it,
//
//   - $D0, $D1, … $D15 are the disks; they obey flush, discard and write-zeroes, with 512-byte logical blocks;
//   - $OUT is a folder shared with the host, the only place below / that may be written besides /run and /dev;
//   - the working directory and $TMPDIR are an empty tmpfs;
//   - dmsetup creates its nodes below /dev/mapper by itself (there is no udev);
//   - "dmsetup create" and "remove" of what the script made is its own business: a device left over at the end does no
//     harm, except that what its target would have written when it is removed is then not written.
//
// A boot takes two seconds, so put many cases into one. More than sixteen disks, or disks by the seed, go into the shared folder and
// become loop devices there (these know no discard); Options.Dir is that folder:
//
//	for f in $OUT/cow-*; do
//		l=$(losetup -f --show $f)
//		…
//		losetup -d $l
//	done
//
// System calls inside are slow (0.2 ms for a page fault), so touch little memory; the kernel judges bytes and behaviour,
// never speed. Disk paths may be of any form. Two boots may run at the same time if they share no disk.
//
// # Other kernels
//
// Options.Machine is the folder of a newer kernel, Debian's for virtual machines, which QEMU runs (TCG) and debian-kernel.sh fetches. The
// host's root file system is its root as well, by virtiofs, which wants root on the host. Such a boot takes ten seconds, and
// everything in it is some ten times slower. It is for drivers that the user-mode kernel lacks, or has in an old version.
//
// # Conformance
//
// testdata/script holds scripts in the language of package conform, testdata/golden the kernel's answers to them. TestGolden runs
// every script on udm and compares; it needs no kernel. TestKernel asks the kernel again (with -update, takes its answers; without
// it, -scripts and -kernel, leaves out those that are long), and runs random scripts on both; in TestKernelCrossBoot the kernel
// and udm take turns on the same disks, also on such as have lost power in the middle; in TestKernelKilled udm goes on from what a
// killed kernel has left. Flags:
// -scripts a,b limits the first two, -seeds and -crossseeds set the number of random scripts of each kind, -kernel makes it large,
// -udm names the program under test. Tests that boot a kernel have Kernel in their names; see Need for where there is none.
//
// # Life of the process
//
// A boot is one process group, killed as a whole when the script has ended, when it hangs (package watchdog) or when the
// caller goes away. Run returns only when no process of the group is left. On busy hosts a kernel now and then loses its
// hold on a process of its own; Boot then boots again, once, with disks and folder as they were, and logs it.
package kernel
