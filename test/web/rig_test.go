//go:build chromium

package web

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"udm/blk"
	"udm/ctl"
	"udm/ctl/server"
	"udm/ctl/server/service"
	"udm/ctl/server/web"
	"udm/env"
	"udm/targets/all"
	"udm/volume"
)

// rig is a daemon with a page, in the test's process.
type rig struct {
	*service.Service
	testing.TB
	root, token string
	addresses   map[string]string // of front ends, by name
}

var ctx = context.Background()

func newRig(t testing.TB, cfg server.Config) *rig {
	t.Helper()
	root, err := os.MkdirTemp("", "udm") // short enough for a socket
	must(t, err)
	run, stop := context.WithCancel(ctx)
	ready, ended := make(chan *service.Service, 1), make(chan error, 1)
	cfg.Root, cfg.Program, cfg.Types, cfg.Log, cfg.Drain = root, "v1", all.Types(), slog.New(slog.DiscardHandler), 5*time.Minute
	cfg.Web, cfg.Ready = "localhost:0", func(s *service.Service) { ready <- s }
	go func() { ended <- server.Run(run, cfg) }()
	r := &rig{TB: t, root: root, addresses: make(map[string]string)}
	select {
	case r.Service = <-ready:
	case err := <-ended:
		stop()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		must(t, os.RemoveAll(root))
	})
	r.token, err = web.ReadToken(root)
	must(t, err)
	ends, err := r.FrontEnds(ctx)
	must(t, err)
	for _, f := range ends {
		if len(f.Addresses) > 0 {
			r.addresses[f.Name] = f.Addresses[0]
		}
	}
	return r
}

// at is the address of the page, as udm web prints it.
func (r *rig) at() string { return "http://" + r.address() + "/#" + r.token }

func (r *rig) address() string { return r.addresses[ctl.WebFrontEnd] }

func (r *rig) create(name, table string) {
	r.Helper()
	_, err := r.Create(ctx, ctl.Create{Name: name, Table: table})
	must(r, err)
}

// file makes a sparse file.
func (r *rig) file(name string, size int64) string {
	r.Helper()
	path := filepath.Join(r.root, name)
	must(r, os.WriteFile(path, nil, 0o600))
	must(r, os.Truncate(path, size))
	return path
}

// write writes zeroes to a device.
func (r *rig) write(name string, sector uint64, bytes int) error {
	r.Helper()
	d, err := r.Open(ctl.Ref{Name: name}, true)
	must(r, err)
	defer d.Close()
	return blk.WriteSectors(env.Real(), d, make([]byte, bytes), sector, 0)
}

func (r *rig) read(name string, sector uint64, bytes int) {
	r.Helper()
	d, err := r.Open(ctl.Ref{Name: name}, false)
	must(r, err)
	defer d.Close()
	must(r, blk.ReadSectors(env.Real(), d, make([]byte, bytes), sector))
}

// town makes a few devices of every kind.
func (r *rig) town() {
	r.Helper()
	image := r.file("debian-12.img", 64<<20)
	var names []string
	for i := range 14 {
		names = append(names, fmt.Sprintf("web-%02d", i+1))
	}
	must(r, r.Clone(ctx, volume.CloneSpec{Base: image, Names: names}))
	must(r, r.Clone(ctx, volume.CloneSpec{Base: r.file("alpine-3.20.img", 16<<20), Names: []string{"ci-1", "ci-2", "ci-3", "ci-4"}}))
	must(r, r.CreatePool(ctx, volume.PoolSpec{Name: "fast", Size: 256 << 20}))
	must(r, r.CreatePool(ctx, volume.PoolSpec{Name: "archive", Size: 128 << 20}))
	for _, v := range []string{"db", "mail", "wiki", "metrics", "registry"} {
		must(r, r.CreateVolume(ctx, ctl.CreateVolume{Pool: "fast", Name: v, Size: 64 << 20}))
	}
	must(r, r.CreateVolume(ctx, ctl.CreateVolume{Pool: "archive", Name: "logs", Size: 96 << 20}))
	must(r, r.Service.Snapshot(ctx, volume.SnapshotSpec{Of: "db", Names: []string{"db-before"}}))
	r.create("striped", fmt.Sprintf("0 131072 striped 2 128 %s 0 %s 0", r.file("a.img", 32<<20), r.file("b.img", 32<<20)))
	r.create("scratch", "0 32768 linear mem:16M 0")
	must(r, r.Clone(ctx, volume.CloneSpec{Base: "scratch", Names: []string{"try-1", "try-2"}}))
	for i, name := range []string{"db", "mail", "wiki", "logs", "web-01", "web-02", "web-03", "ci-1", "db-before"} {
		must(r, r.write(name, 0, (9-i)<<20))
	}
}
