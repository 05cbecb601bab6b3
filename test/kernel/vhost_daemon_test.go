//go:build linux

package kernel

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"udm/ctl"
	"udm/volume"
)

// TestKernelVhostUserDaemon lets the kernel use the daemon's devices over vhost-user: a linear one, a clone and a thin
// volume, each of which grows while it is mounted there.
func TestKernelVhostUserDaemon(t *testing.T) {
	Need(t)
	dir, h := t.TempDir(), newUDM(t)
	client := ctl.NewClient(h.root)
	defer client.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	names := makeGuestDisks(t, client, dir)
	var args []string
	for _, name := range names {
		path := filepath.Join(dir, name+".sock")
		if _, err := client.Export(ctx, ctl.Export{Ref: ctl.Ref{Name: name}, Path: path}); err != nil {
			t.Fatal(err)
		}
		args = append(args, "virtio_uml.device="+path+":2")
	}
	o := Options{Dir: t.TempDir(), Modules: []string{"virtio_blk"}, Args: args, Script: `
		for d in /sys/block/vd?; do
			v=/dev/${d#/sys/block/}
			name=$(cat $d/serial)
			[ $(cut -c35 $d/device/features) = 1 ] # packed rings
			mkfs.ext4 -q -E nodiscard $v
			mkdir $name
			mount -t ext4 $v $name
			head -c 1000000 /dev/urandom >$name/data
			sha256sum <$name/data >sum
			[ $name = clone ] || fstrim $name # snapshots know no discard
			touch $OUT/$name.mounted
			while [ $(cat $d/size) = 32768 ]; do sleep 0.1; done
			resize2fs $v
			head -c 18000000 /dev/zero >$name/more
			umount $name
			e2fsck -fn $v
			mount -t ext4 $v $name
			sha256sum -c sum <$name/data
			echo "$name is well: $(cat $d/size)"
			umount $name
		done`}
	grown := make(chan error, 1)
	go func() { grown <- growGuestDisks(ctx, client, o.Dir, names) }()
	r := Boot(t, o)
	if err := <-grown; err != nil {
		t.Error(err)
	}
	for _, name := range names {
		if !strings.Contains(r.Output, name+" is well: 65536\n") {
			t.Errorf("nothing of %s in\n%s", name, r.Output)
		}
	}
}

// makeGuestDisks makes devices of 16 MiB.
func makeGuestDisks(t *testing.T, client *ctl.Client, dir string) []string {
	t.Helper()
	ctx, image, disk := context.Background(), filepath.Join(dir, "image"), filepath.Join(dir, "disk")
	for path, size := range map[string]int64{image: 16 << 20, disk: 16 << 20} {
		err := os.WriteFile(path, nil, 0o600)
		if err == nil {
			err = os.Truncate(path, size)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := client.Create(ctx, ctl.Create{Name: "linear", Table: "0 32768 linear " + disk + " 0"})
	if err == nil {
		err = client.Clone(ctx, volume.CloneSpec{Base: image, Names: []string{"clone"}})
	}
	if err == nil {
		err = client.CreatePool(ctx, volume.PoolSpec{Name: "pool", Size: 64 << 20})
	}
	if err == nil {
		err = client.CreateVolume(ctx, ctl.CreateVolume{Pool: "pool", Name: "thin", Size: 16 << 20})
	}
	if err != nil {
		t.Fatal(err)
	}
	return []string{"clone", "linear", "thin"}
}

// growGuestDisks doubles each disk when the guest has mounted it.
func growGuestDisks(ctx context.Context, client *ctl.Client, out string, names []string) error {
	left := slices.Clone(names)
	for t := time.NewTicker(50 * time.Millisecond); len(left) > 0; {
		mounted := func(name string) bool {
			_, err := os.Stat(filepath.Join(out, name+".mounted"))
			return err == nil
		}
		if i := slices.IndexFunc(left, mounted); i >= 0 {
			if err := client.Resize(ctx, volume.ResizeSpec{Name: left[i], Size: 32 << 20}); err != nil {
				return err
			}
			left = slices.Delete(left, i, i+1)
			continue
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
