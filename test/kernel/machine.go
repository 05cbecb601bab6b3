//go:build unix

package kernel

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// A virtual machine runs a kernel that is newer than the user-mode one: Debian's for virtual machines, as debian-kernel.sh unpacks it.
// QEMU computes it (TCG), and virtiofsd shares the host's root file system with it.

// runMachine starts both, in one process group.
const runMachine = `
"$1" --socket-path="$2" -o source=/ -o sandbox=chroot >"$2.log" 2>&1 &
until [ -S "$2" ] || ! kill -0 $!; do sleep 0.1; done
shift 2
exec qemu-system-x86_64 "$@"
`

// virtioFS is the program of Debian 12's package qemu-system-common, later virtiofsd.
func virtioFS() string {
	const later = "/usr/libexec/virtiofsd"
	if _, err := os.Stat(later); err == nil {
		return later
	}
	return "/usr/lib/qemu/virtiofsd"
}

// machine returns the program that runs the kernel in folder o.Machine, and its arguments.
func (o *Options) machine(work string) (program string, args []string, err error) {
	image, err := filepath.Glob(filepath.Join(o.Machine, "boot", "vmlinuz-*"))
	if err != nil || len(image) != 1 {
		return "", nil, fmt.Errorf("%s holds the kernels %q: %w", o.Machine, image, err)
	}
	mem, socket := strconv.Itoa(o.Memory)+"M", filepath.Join(work, "root.sock")
	args = []string{
		"-c", runMachine, "sh", virtioFS(), socket,
		// With threads, QEMU 7.2 now and then runs code that the kernel has replaced.
		"-M", "q35", "-accel", "tcg,thread=single", "-cpu", "qemu64,-cx16", "-smp", "2", "-m", mem,
		"-object", "memory-backend-memfd,id=m,share=on,size=" + mem, "-numa", "node,memdev=m",
		"-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio",
		"-chardev", "socket,id=root,path=" + socket, "-device", "vhost-user-fs-pci,chardev=root,tag=root",
		// Where other programs take the processors, the kernel's check of its timer fails.
		"-kernel", image[0], "-append", "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check rootfstype=virtiofs root=root rw init=" + filepath.Join(work, "init"),
	}
	for i := range o.Disks {
		name := "d" + strconv.Itoa(i)
		args = append(args, "-drive", "if=none,format=raw,discard=unmap,id="+name+",file="+diskLink(work, i),
			"-device", "virtio-blk-pci,drive="+name)
	}
	return "/bin/sh", args, nil
}

// mountsOfMachine mounts the two folders that may be written; the rest of the host's files may not.
func mountsOfMachine(work, out string) string {
	return fmt.Sprintf("mount --bind %s /run/work; mount --bind %s /run/out; mount -o remount,bind,ro /\n", work, out)
}

// machineVersion is the version of the kernel in a folder.
func machineVersion(folder string) (string, error) {
	dirs, err := os.ReadDir(filepath.Join(folder, "lib", "modules"))
	if err != nil || len(dirs) != 1 {
		return "", fmt.Errorf("%s holds modules of %d kernels: %w", folder, len(dirs), err)
	}
	return dirs[0].Name(), nil
}
