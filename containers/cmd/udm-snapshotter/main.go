// Command udm-snapshotter is a proxy plugin of containerd: it serves snapshots, which are
// thin volumes of a udm daemon, on a Unix socket.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/contrib/snapshotservice"
	"google.golang.org/grpc"

	"udm/containers/filesystem"
	"udm/containers/internal/size"
	"udm/containers/internal/socket"
	"udm/containers/pool"
	"udm/containers/snapshotter"
	"udm/ctl"
)

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := run(log); err != nil {
		fmt.Fprintln(os.Stderr, "udm-snapshotter:", err)
		os.Exit(1)
	}
}

func run(log *slog.Logger) error {
	root := flag.String("root", "/var/lib/udm", "directory of the daemon")
	path := flag.String("socket", "/run/udm-snapshotter/udm.sock", "Unix socket to serve on")
	files := flag.String("files", "/run/udm-snapshotter/files", "directory in which the daemon shows volumes as files")
	name := flag.String("pool", "containers", "pool of the snapshots; it is made when it is missing")
	dir := flag.String("pool-dir", "", "directory of a new pool's files; without it below the daemon's root")
	fsys := flag.String("fs", "ext4", "file system of snapshots: ext4 or xfs")
	offer := flag.String("offer", "loop", "how snapshots are offered: loop, block, file or vhost-user")
	first, most, each := size.Bytes(16<<30), size.Bytes(1<<40), size.Bytes(10<<30)
	flag.Var(&first, "pool-size", "size of a new pool, such as 16G; its files are sparse")
	flag.Var(&most, "pool-max", "size that the pool may grow to")
	flag.Var(&each, "size", "size of the file system of a snapshot")
	wait := flag.Bool("wait-when-full", false, "writes to a full pool wait a minute for space before they fail")
	flag.Parse()

	c := snapshotter.Config{Prefix: *name + "-snap", Files: *files, Size: uint64(each), Log: log,
		Pool: pool.Config{Name: *name, Dir: *dir, First: uint64(first), Most: uint64(most), WaitWhenFull: *wait}}
	var err error
	if c.FS, err = filesystem.Parse(*fsys); err != nil {
		return err
	}
	if c.Offer, err = snapshotter.ParseOffer(*offer); err != nil {
		return err
	}
	client := ctl.NewClient(*root)
	defer client.Close()
	s := snapshotter.New(c, client)
	defer s.Close()
	return serve(s, *path, log)
}

// serve answers on the socket until a signal ends it.
func serve(s *snapshotter.Snapshotter, path string, log *slog.Logger) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	l, err := socket.Listen(path)
	if err != nil {
		return err
	}
	rpc := grpc.NewServer()
	snapshotsapi.RegisterSnapshotsServer(rpc, snapshotservice.FromSnapshotter(s))
	defer context.AfterFunc(ctx, rpc.GracefulStop)()
	log.Info("ready", "socket", path)
	return rpc.Serve(l)
}
