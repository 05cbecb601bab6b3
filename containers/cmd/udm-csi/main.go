// Command udm-csi is a CSI driver: it serves volumes, which are thin volumes of a udm
// daemon on this node, on a Unix socket.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"

	"google.golang.org/grpc"

	"udm/containers/csi"
	"udm/containers/internal/size"
	"udm/containers/internal/socket"
	"udm/ctl"
)

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := run(log); err != nil {
		fmt.Fprintln(os.Stderr, "udm-csi:", err)
		os.Exit(1)
	}
}

// options are the flags that are not in the driver's configuration.
type options struct {
	root, socket, listen string
	cert, key, ca        string
}

func run(log *slog.Logger) error {
	o, c, err := parse(log)
	if err != nil {
		return err
	}
	secure, err := o.tls()
	if err != nil {
		return err
	}
	if secure != nil {
		c.Fetch = csi.FetchWith(secure)
	}
	client := ctl.NewClient(o.root)
	defer client.Close()
	d := csi.New(c, client)
	defer d.Close()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := d.Thaw(ctx); err != nil {
		log.Warn("file systems that an earlier driver froze may still be", "reason", err)
	}
	return serve(ctx, d, o, secure, log)
}

func parse(log *slog.Logger) (o options, c csi.Config, err error) {
	host, _ := os.Hostname() // "" if it has none
	first, most := size.Bytes(16<<30), size.Bytes(1<<40)
	peers := ""
	c.Log = log
	flag.StringVar(&c.Name, "driver", "udm.csi", "name of the driver")
	flag.StringVar(&c.Node, "node", host, "name of this node")
	flag.Int64Var(&c.Most, "max-volumes", 0, "volumes that may be published on this node; 0: any number")
	flag.StringVar(&o.root, "root", "/var/lib/udm", "directory of the daemon")
	flag.StringVar(&o.socket, "socket", "/csi/csi.sock", "Unix socket to serve on")
	flag.StringVar(&c.Pool.Name, "pool", "csi", "pool of the volumes; it is made when it is missing")
	flag.StringVar(&c.Pool.Dir, "pool-dir", "", "directory of a new pool's files; without it below the daemon's root")
	flag.BoolVar(&c.Pool.WaitWhenFull, "wait-when-full", false, "writes to a full pool wait a minute for space before they fail")
	flag.Var(&first, "pool-size", "size of a new pool, such as 16G; its files are sparse")
	flag.Var(&most, "pool-max", "size that the pool may grow to")
	flag.StringVar(&peers, "peers", "", "drivers of other nodes, whose snapshots can be restored here: NODE=HOST:PORT,…")
	flag.StringVar(&o.listen, "peer-listen", "", "address to serve snapshots to other nodes on, such as :9810; it needs the certificates")
	flag.StringVar(&o.cert, "peer-cert", "", "certificate file (PEM) of this node")
	flag.StringVar(&o.key, "peer-key", "", "key file (PEM) of the certificate")
	flag.StringVar(&o.ca, "peer-ca", "", "authority file (PEM) of all nodes' certificates")
	flag.Parse()
	c.Pool.First, c.Pool.Most, c.Version = uint64(first), uint64(most), version()
	if c.Node == "" {
		return o, c, errors.New("name this node with --node")
	}
	c.Peers, err = parsePeers(peers)
	return o, c, err
}

func version() string {
	if i, ok := debug.ReadBuildInfo(); ok && i.Main.Version != "" {
		return i.Main.Version
	}
	return "devel"
}

func parsePeers(text string) (map[string]string, error) {
	peers := make(map[string]string)
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' }) {
		node, address, ok := strings.Cut(word, "=")
		if !ok {
			return nil, fmt.Errorf("--peers: %q is not NODE=HOST:PORT", word)
		}
		peers[node] = address
	}
	return peers, nil
}

// tls is how nodes talk to each other: each shows a certificate of the authority. nil:
// there are no certificates.
func (o options) tls() (*tls.Config, error) {
	switch {
	case o.cert == "" && o.key == "" && o.ca == "" && o.listen == "":
		return nil, nil
	case o.cert == "" || o.key == "" || o.ca == "":
		return nil, errors.New("give --peer-cert, --peer-key and --peer-ca together")
	}
	pair, err := tls.LoadX509KeyPair(o.cert, o.key)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(o.ca)
	if err != nil {
		return nil, err
	}
	authority := x509.NewCertPool()
	if !authority.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificate", o.ca)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: authority, ClientCAs: authority,
		ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13}, nil
}

// serve answers on the socket, and to peers, until a signal or an error ends both.
func serve(ctx context.Context, d *csi.Driver, o options, secure *tls.Config, log *slog.Logger) error {
	l, err := socket.Listen(o.socket)
	if err != nil {
		return err
	}
	rpc := grpc.NewServer(grpc.UnaryInterceptor(csi.Lasting))
	d.Register(rpc)
	peer := &http.Server{Handler: d.Peer()}
	var others sync.WaitGroup
	defer others.Wait()
	if o.listen != "" {
		pl, err := net.Listen("tcp", o.listen)
		if err != nil {
			return errors.Join(err, l.Close())
		}
		others.Go(func() {
			if err := peer.Serve(tls.NewListener(pl, secure)); !errors.Is(err, http.ErrServerClosed) {
				log.Error("snapshots are not served to other nodes any more", "reason", err)
			}
		})
	}
	defer context.AfterFunc(ctx, rpc.GracefulStop)()
	defer peer.Close()
	log.Info("ready", "socket", o.socket)
	return rpc.Serve(l)
}
