package csi

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"syscall"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"udm/containers/pool"
	"udm/ctl"
	"udm/volume"
)

// Config configures a driver.
type Config struct {
	Name    string // of the driver
	Version string
	Node    string // name of this node
	Pool    pool.Config
	Most    int64             // volumes that may be published here; 0: any number
	Peers   map[string]string // HOST:PORT of the drivers of other nodes, by their names
	Fetch   Fetch             // gets snapshots from peers; nil: none can be had
	Log     *slog.Logger
}

// Driver implements the services of CSI.
type Driver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedGroupControllerServer
	csi.UnimplementedNodeServer

	Config
	client ctl.Service
	pool   *pool.Keeper
	stop   context.CancelFunc
	behind sync.WaitGroup

	mu sync.Mutex
	at map[string]bool // guarded by mu; devices that calls are about
}

// New returns a driver on a daemon, which need not run yet. Close it.
func New(c Config, client ctl.Service) *Driver {
	d := &Driver{Config: c, client: client, pool: pool.New(c.Pool, client, c.Log), at: make(map[string]bool)}
	ctx, stop := context.WithCancel(context.Background())
	d.stop = stop
	d.behind.Go(func() { d.pool.Watch(ctx) })
	return d
}

// Close ends what runs behind. Volumes stay published.
func (d *Driver) Close() {
	d.stop()
	d.behind.Wait()
}

// Register serves all services. A call goes on when its client has gone: what it began
// is not left half done for no reason.
func (d *Driver) Register(s *grpc.Server) {
	csi.RegisterIdentityServer(s, d)
	csi.RegisterControllerServer(s, d)
	csi.RegisterGroupControllerServer(s, d)
	csi.RegisterNodeServer(s, d)
	csi.RegisterSnapshotMetadataServer(s, metadata{d: d})
}

// Lasting keeps the context of calls from ending before they do.
func Lasting(ctx context.Context, r any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	return next(context.WithoutCancel(ctx), r)
}

// alone keeps other calls about a device away until done is called.
func (d *Driver) alone(device string) (done func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.at[device] {
		return nil, status.Errorf(codes.Aborted, "another call is at %s; try again", device)
	}
	d.at[device] = true
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.at, device)
	}, nil
}

// devicePrefix is what the names of all devices of the driver begin with.
const devicePrefix = "csi-"

// device is the device for a name that a call gives. Names may be long and have any
// characters; those of devices may not.
func device(kind, name string) string {
	sum := sha256.Sum256([]byte(kind + "/" + name))
	return devicePrefix + kind + "-" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:20]))
}

// id is the id of a device of this node.
func (d *Driver) id(device string) string { return device + "@" + d.Node }

// local is the device of an id; false: it is not one of this node.
func (d *Driver) local(id string) (device string, ok bool) {
	device, node, found := strings.Cut(id, "@")
	return device, found && node == d.Node && strings.HasPrefix(device, devicePrefix)
}

// inWords gives an error of the daemon its code.
func inWords(err error) error {
	if err == nil {
		return nil
	}
	if _, has := status.FromError(err); has {
		return err
	}
	code := codes.Internal
	var none *ctl.NotRunning
	var said *ctl.Error
	switch {
	case errors.As(err, &none):
		code = codes.Unavailable
	case errors.Is(err, syscall.ENXIO):
		code = codes.NotFound
	case errors.Is(err, syscall.ENOSPC):
		code = codes.ResourceExhausted
	case errors.Is(err, syscall.EBUSY):
		code = codes.FailedPrecondition
	case errors.Is(err, syscall.EINTR):
		code = codes.Aborted
	case !errors.As(err, &said):
		code = codes.Unavailable
	}
	return status.Error(code, err.Error())
}

// find returns an object with its record. NotFound: there is none, or it is another
// program's.
func (d *Driver) find(ctx context.Context, kind, id string) (volume.Object, *record, error) {
	if id == "" {
		return volume.Object{}, nil, status.Errorf(codes.InvalidArgument, "the id of the %s is missing", kind)
	}
	name, ok := d.local(id)
	if !ok {
		return volume.Object{}, nil, status.Errorf(codes.NotFound, "there is no %s %q on the node %s", kind, id, d.Node)
	}
	return d.object(ctx, kind, name)
}

func (d *Driver) object(ctx context.Context, kind, name string) (volume.Object, *record, error) {
	o, err := d.client.Object(ctx, ctl.Object{Name: name, Settled: true})
	if err != nil {
		return o, nil, inWords(err)
	}
	r, err := recordOf(o)
	if err == nil && (r == nil || r.Kind != kind) {
		err = status.Errorf(codes.NotFound, "%s is not a %s of this driver", name, kind)
	}
	return o, r, err
}

// save changes the record of a device.
func (d *Driver) save(ctx context.Context, device string, r *record) error {
	return inWords(d.client.Label(ctx, volume.LabelSpec{Name: device, Labels: r.label()}))
}
