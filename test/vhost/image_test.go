//go:build linux

package vhost

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"udm/test/program"
)

// diskLen is the size of a disk; a guest's load begins behind the first 64 MiB.
const diskLen = 80 << 20

// makeImage makes a disk that boots the kernel in the folder kernel with command guest.
func makeImage(t *testing.T, kernel, path string) {
	t.Helper()
	vmlinuz, err := filepath.Glob(filepath.Join(kernel, "boot/vmlinuz-*"))
	if err != nil || len(vmlinuz) != 1 {
		t.Fatalf("%s holds the kernels %q: %v", kernel, vmlinuz, err)
	}
	dir := t.TempDir()
	initrd, config := filepath.Join(dir, "initrd"), filepath.Join(dir, "syslinux.cfg")
	must(t, os.WriteFile(initrd, initramfs(t, kernel), 0o600))
	must(t, os.WriteFile(config, []byte("default linux\nlabel linux\nkernel vmlinuz\nappend initrd=initrd console=ttyS0 quiet panic=-1 mitigations=off\n"), 0o600))
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, os.Truncate(path, 63<<20))
	for _, cmd := range [][]string{
		{"mkfs.vfat", "-F", "32", path},
		{"syslinux", "--install", path},
		{"mcopy", "-i", path, vmlinuz[0], "::vmlinuz"},
		{"mcopy", "-i", path, initrd, config, "::"},
	} {
		if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", cmd, err, out)
		}
	}
	must(t, os.Truncate(path, diskLen))
}

// initramfs is an archive of command guest and the modules that it loads.
func initramfs(t *testing.T, kernel string) []byte {
	t.Helper()
	files := map[string]string{"init": program.Build(t, "udm/test/vhost/guest")}
	for _, name := range []string{"virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk"} {
		found, err := filepath.Glob(filepath.Join(kernel, "lib/modules/*/kernel/drivers/*", name+".ko"))
		if err != nil || len(found) != 1 {
			t.Fatalf("module %s of %s: %q, %v", name, kernel, found, err)
		}
		files[name+".ko"] = found[0]
	}
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	for name, path := range files {
		content, err := os.ReadFile(path)
		must(t, err)
		_, err = z.Write(entry(name, 0o100755, content))
		must(t, err)
	}
	_, err := z.Write(entry("TRAILER!!!", 0, nil))
	must(t, err)
	must(t, z.Close())
	return out.Bytes()
}

// entry is a file in the format "newc" of cpio: thirteen numbers of eight digits, the name
// and the content, both filled up to a multiple of four bytes.
func entry(name string, mode int, content []byte) []byte {
	var b bytes.Buffer
	fill := func() {
		for b.Len()%4 != 0 {
			b.WriteByte(0)
		}
	}
	b.WriteString("070701")
	for _, n := range []int{0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0} {
		fmt.Fprintf(&b, "%08x", n)
	}
	b.WriteString(name + "\x00")
	fill()
	b.Write(content)
	fill()
	return b.Bytes()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
