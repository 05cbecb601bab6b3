package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"udm/blk"
	"udm/cmd/udm/dmsetup"
	"udm/ctl"
	"udm/ctl/server"
	"udm/ctl/server/service"
	"udm/dm"
	"udm/targets/all"
	"udm/targets/linear"
	"udm/targets/striped"
	"udm/volume"
)

func quickstartCommand() *cobra.Command {
	var q quickstart
	cmd := &cobra.Command{
		Use:   "quickstart [IMAGE]",
		Short: "Set up and serve an example: an image, clones and a pool",
		Long: `quickstart stacks devices on an image, serves them over NBD and shows how to attach
them. Without IMAGE, it makes an image with a file system. It runs until Ctrl-C. Its
data is in ./udm-data, where the next quickstart finds it.

The image is served read-only and is never written. Writes to a clone or volume go
to files in ./udm-data. With --write, the image itself is served for writing, and
nothing is stacked on it.

With --encrypted, there is also a thin volume over an integrity device, and the commands
are printed that put LVM in LUKS on it, or open what is on it already.`,
		Example: `  udm quickstart
  udm quickstart --encrypted
  udm quickstart debian.qcow2.raw
  udm quickstart --write disk.img`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q.out, q.errOut = cmd.OutOrStdout(), cmd.ErrOrStderr()
			if len(args) > 0 {
				q.image = args[0]
			}
			return q.run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&q.dir, "dir", "udm-data", "directory for its data")
	cmd.Flags().BoolVar(&q.write, "write", false, "serve the image for writing")
	cmd.Flags().BoolVar(&q.encrypted, "encrypted", false, "add a volume over integrity for a LUKS disk")
	return cmd
}

// quickstart is one run of the command.
type quickstart struct {
	image       string // absolute once prepared
	dir         string // absolute once prepared
	write       bool
	encrypted   bool // with a volume for a LUKS disk
	own         bool // the image was made by quickstart
	out, errOut io.Writer
}

// run prepares the image and runs a daemon with the devices on it.
func (q *quickstart) run(ctx context.Context) error {
	if err := q.prepare(ctx); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var failure error
	err := server.Run(ctx, server.Config{
		Root: q.dir, Program: thisBuild().String(), Types: all.Types(),
		Log: slog.New(slog.NewTextHandler(q.errOut, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Ready: func(s *service.Service) {
			if failure = q.present(ctx, s); failure != nil {
				stop()
			}
		},
	})
	return errors.Join(failure, err)
}

// prepare finds or creates the directory and the image.
func (q *quickstart) prepare(ctx context.Context) (err error) {
	if q.dir, err = filepath.Abs(q.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(q.dir, 0o700); err != nil {
		return err
	}
	if q.image == "" {
		q.own = true
		q.image = filepath.Join(q.dir, "disk.img")
		return makeImage(ctx, q.image)
	}
	if q.image, err = filepath.Abs(q.image); err != nil {
		return err
	}
	_, err = q.sectors()
	return err
}

// sectors is the size of the image.
func (q *quickstart) sectors() (uint64, error) {
	st, err := volume.HostFiles{}.Stat(q.image)
	if err == nil && st.Size < blk.SectorSize {
		err = errors.New("it is smaller than a sector")
	}
	if err != nil {
		return 0, fmt.Errorf("image %s: %w", q.image, err)
	}
	return st.Size / blk.SectorSize, nil
}

// present creates the missing devices and shows all.
func (q *quickstart) present(ctx context.Context, s *service.Service) error {
	first, err := q.stack(ctx, s)
	if err != nil {
		return err
	}
	if first && q.own && !q.write {
		if err := fill(ctx, s, q.image); err != nil {
			return err
		}
	}
	if q.encrypted {
		if err := q.vault(ctx, s); err != nil {
			return err
		}
	}
	return q.show(ctx, s)
}

// stack creates the devices and reports whether there were none before.
func (q *quickstart) stack(ctx context.Context, s *service.Service) (first bool, err error) {
	old, err := s.Device(ctx, ctl.Query{Ref: ctl.Ref{Name: "image"}, With: []ctl.With{ctl.WithDeps}})
	if err == nil {
		return false, q.sameImage(old)
	}
	sectors, err := q.sectors()
	if err != nil {
		return false, err
	}
	for _, part := range q.parts(ctx, s, sectors) {
		if _, err := s.Device(ctx, ctl.Query{Ref: ctl.Ref{Name: part.name}}); err == nil {
			continue
		}
		if err := part.make(); err != nil {
			return false, fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return true, nil
}

// sameImage refuses data made from another image.
func (q *quickstart) sameImage(d ctl.Device) error {
	for _, dep := range d.Deps {
		if dep.Source == q.image && d.ReadOnly == !q.write {
			return nil
		}
	}
	if d.Waiting != "" {
		return fmt.Errorf("%s: %s", q.image, d.Waiting)
	}
	return fmt.Errorf("%s has the devices of another run; choose another --dir or delete it", q.dir)
}

// part is a device of the example.
type part struct {
	name string
	make func() error
}

// parts are the image, a copy of it on two files, two clones of it, and a pool with a
// volume based on it and a snapshot of that volume.
func (q *quickstart) parts(ctx context.Context, s *service.Service, sectors uint64) (parts []part) {
	if q.own && !q.write {
		parts = append(parts, part{"striped", func() error { return q.stripes(ctx, s, sectors) }})
	}
	if !q.write {
		for _, name := range []string{"clone-1", "clone-2"} {
			parts = append(parts, part{name, func() error {
				return s.Clone(ctx, volume.CloneSpec{Base: q.image, Names: []string{name}, Store: filepath.Join(q.dir, name+".cow")})
			}})
		}
		parts = append(parts,
			part{"pool", func() error {
				return s.CreatePool(ctx, volume.PoolSpec{Name: "pool", Size: max(2*sectors, 1<<20) * blk.SectorSize, Dir: filepath.Join(q.dir, "pool")})
			}},
			part{"volume", func() error {
				return s.Clone(ctx, volume.CloneSpec{Base: q.image, Names: []string{"volume"}, Pool: "pool"})
			}},
			part{"volume-snap", func() error {
				return s.Snapshot(ctx, volume.SnapshotSpec{Of: "volume", Names: []string{"volume-snap"}})
			}})
	}
	// This one comes last: while it is missing, the next start continues here.
	return append(parts, part{"image", func() error { return q.linear(ctx, s, sectors) }})
}

// linear maps the image in two halves.
func (q *quickstart) linear(ctx context.Context, s *service.Service, sectors uint64) error {
	half := sectors / 2 / 8 * 8
	specs := []dm.Spec{dm.NewSpec(half, sectors-half, &linear.Line{Place: dm.Place{Device: q.image, Start: half}})}
	if half > 0 {
		specs = append([]dm.Spec{dm.NewSpec(0, half, &linear.Line{Place: dm.Place{Device: q.image}})}, specs...)
	}
	_, err := s.Create(ctx, ctl.Create{Name: "image", Table: dm.FormatTable(specs), ReadOnly: !q.write})
	return err
}

// stripes is a device over two files for a copy of the image.
func (q *quickstart) stripes(ctx context.Context, s *service.Service, sectors uint64) error {
	const chunk = 128
	each := (sectors + 2*chunk - 1) / (2 * chunk) * chunk
	a, b := filepath.Join(q.dir, "stripe-a.img"), filepath.Join(q.dir, "stripe-b.img")
	for _, f := range []string{a, b} {
		if err := sparse(f, each); err != nil {
			return err
		}
	}
	l := &striped.Line{Chunk: chunk, Stripes: []dm.Place{{Device: a}, {Device: b}}}
	_, err := s.Create(ctx, ctl.Create{Name: "striped", Table: dm.NewSpec(0, 2*each, l).String()})
	return err
}

// show prints the devices and how to use them.
func (q *quickstart) show(ctx context.Context, s *service.Service) error {
	ds, err := list(ctx, s, "")
	if err != nil {
		return err
	}
	fmt.Fprintf(q.out, "udm serves these devices from %s:\n\n", q.dir)
	if err := printTable(q.out, listRows(ds)); err != nil {
		return err
	}
	q.dmsetup(ctx, "Device tree", "ls --tree")
	q.dmsetup(ctx, "Status", "status")
	encrypted, err := q.encryptedAdvice(s)
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(q.out, q.advice(ds, encrypted))
	return err
}

// dmsetup prints output of dmsetup.
func (q *quickstart) dmsetup(ctx context.Context, title, args string) {
	fmt.Fprintf(q.out, "\n%s (udm dmsetup %s):\n\n", title, args)
	dmsetup.Run(ctx, q.dir, strings.Fields(args), dmsetup.Streams{In: strings.NewReader(""), Out: q.out, Err: q.errOut, UTF8: utf8Locale()})
}

// advice is how to attach clients, and what is told of an encrypted disk.
func (q *quickstart) advice(ds []listed, encrypted string) string {
	name := "image"
	for _, d := range ds {
		if d.Name == "clone-1" {
			name = d.Name
		}
	}
	socket, uri := filepath.Join(q.dir, ctl.NBDSocket), nbdURI(q.dir, name)
	return fmt.Sprintf(`
Attach one, from another terminal:

  nbdinfo '%[1]s'
  nbdcopy '%[1]s' copy.img
  qemu-system-x86_64 -m 1G -drive 'file=%[1]s,format=raw,if=virtio'
  udm --root %[4]s export %[3]s --vhost-user %[4]s/vm.sock
  qemu-system-x86_64 -m 1G -object memory-backend-memfd,id=m,size=1G,share=on -numa node,memdev=m \
    -chardev socket,id=c,path=%[4]s/vm.sock,reconnect=1 -device vhost-user-blk-pci,chardev=c
  sudo nbd-client -unix %[2]s /dev/nbd0 -N %[3]s && sudo mount /dev/nbd0 /mnt

List and change the devices:

  udm --root %[4]s ls
  udm --root %[4]s dmsetup table
%[5]s
Press Ctrl-C to stop. The data stays; the next udm quickstart uses it again.
`, uri, socket, name, q.dir, encrypted)
}
