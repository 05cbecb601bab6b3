//go:build linux

package kernel

import (
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"udm/blk/memdev"
	"udm/export"
	"udm/export/vhost"
)

// TestKernelVhostUser lets the kernel's own driver use a disk over vhost-user: its
// limits, a file system that is made, filled, trimmed and checked, and the content after
// another mount; at last in write-through mode, where nothing needs a flush.
func TestKernelVhostUser(t *testing.T) {
	Need(t)
	d := memdev.New(64<<11, memdev.Volatile)
	s, err := vhost.New(vhost.Config{
		Exports: export.Fixed{{Info: export.Info{Name: "d"}, Device: export.Check(d)}}, Name: "d", Serial: "udm-test", Split: true,
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	defer func() {
		s.Close()
		<-ended
	}()
	r := Boot(t, Options{Modules: []string{"virtio_blk"}, Args: []string{"virtio_uml.device=" + path + ":2"}, Script: `
		cat /sys/block/vda/serial; echo
		echo packed: $(cut -c35 /sys/block/vda/device/features)
		cat /sys/block/vda/size /sys/block/vda/queue/write_cache
		mkfs.ext4 -q -E nodiscard /dev/vda
		mkdir m
		mount -t ext4 /dev/vda m
		head -c 3000000 /dev/urandom >m/data
		sha256sum <m/data >sum
		rm -rf m/lost+found
		fstrim m
		umount m
		e2fsck -fn /dev/vda
		mount -t ext4 /dev/vda m
		echo 3 >/proc/sys/vm/drop_caches
		sha256sum -c sum <m/data
		umount m
		echo write through >/sys/block/vda/cache_type
		cat /sys/block/vda/cache_type
		dd if=/dev/urandom of=/dev/vda bs=64k count=4 oflag=direct status=none`})
	for _, want := range []string{"udm-test", "131072", "write back", "packed: 0", "-: OK", "write through"} {
		if !strings.Contains(r.Output, want) {
			t.Errorf("no %q in\n%s", want, r.Output)
		}
	}
	if d.Dirty() != 0 {
		t.Errorf("%d sectors were never flushed", d.Dirty())
	}
}
