package nbdclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"

	"udm/blk"
	"udm/internal/nbd/proto"
)

// DefaultPort is NBD's port.
const DefaultPort = "10809"

// Dial attaches to a server at a network ("tcp" or "unix") address.
func Dial(ctx context.Context, network, addr string, o Options) (*Client, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	if o.TLS != nil && o.TLS.ServerName == "" && !o.TLS.InsecureSkipVerify {
		o.TLS = o.TLS.Clone()
		o.TLS.ServerName, _, _ = net.SplitHostPort(addr)
	}
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	defer stop()
	return New(nc, o)
}

// DialURI attaches to nbd://host[:port]/export or nbd+unix:///export?socket=path;
// for nbds and nbds+unix o.TLS must be set.
func DialURI(ctx context.Context, uri string, o Options) (*Client, error) {
	network, addr, export, secure, err := ParseURI(uri)
	if err != nil {
		return nil, err
	}
	if secure && o.TLS == nil {
		return nil, fmt.Errorf("nbdclient: %s requires TLS, but no certificates were given", uri)
	}
	o.Export = export
	return Dial(ctx, network, addr, o)
}

// ParseURI parses an NBD URI.
func ParseURI(uri string) (network, addr, export string, secure bool, err error) {
	u, err := url.Parse(uri)
	if err != nil {
		return "", "", "", false, err
	}
	export = u.Path
	if export != "" {
		export = export[1:]
	}
	switch u.Scheme {
	case "nbd", "nbds":
		port := u.Port()
		if port == "" {
			port = DefaultPort
		}
		return "tcp", net.JoinHostPort(u.Hostname(), port), export, u.Scheme == "nbds", nil
	case "nbd+unix", "nbds+unix":
		if socket := u.Query().Get("socket"); socket != "" {
			return "unix", socket, export, u.Scheme == "nbds+unix", nil
		}
	}
	return "", "", "", false, fmt.Errorf("nbdclient: %q is not an NBD URI", uri)
}

// serverInfo is the server's description of the export and the negotiated
// features.
type serverInfo struct {
	size     uint64 // bytes
	flags    uint16
	min      uint32 // bytes; block size
	prefer   uint32
	max      uint32
	extended bool
	meta     bool
}

func (s *serverInfo) limits() blk.Limits {
	l := blk.DefaultLimits(s.size / blk.SectorSize)
	l.LogicalBlock = max(s.min, blk.SectorSize)
	l.Size -= l.Size % uint64(l.LogicalBlock/blk.SectorSize)
	l.PhysicalBlock, l.MinIO = max(s.prefer, l.LogicalBlock), max(s.prefer, l.LogicalBlock)
	longest := max(min(s.max, proto.MaxPayload), l.LogicalBlock)
	l.MaxSectors = (longest - longest%l.LogicalBlock) / blk.SectorSize
	long := uint64(1<<32-1<<16) / blk.SectorSize
	if s.extended {
		long = blk.NoLimit
	}
	if s.flags&proto.FlagTrim != 0 {
		l.MaxDiscard, l.DiscardGranularity = long, l.LogicalBlock
	}
	if s.flags&proto.FlagWriteZeroes != 0 {
		l.MaxWriteZeroes = long
	}
	l.VolatileCache = s.flags&proto.FlagFlush != 0
	l.FUA = s.flags&proto.FlagFUA != 0
	l.ReadOnly = s.flags&proto.FlagReadOnly != 0
	l.Rotational = s.flags&proto.FlagRotational != 0
	l.NoWait = true
	return l
}

// Offer is a server's description of an export.
type Offer struct {
	Name     string // the server's for it
	Size     uint64 // bytes
	Flags    uint16 // transmission flags of the protocol
	MinBlock uint32 // bytes; alignment of requests
}

// MultiConn reports whether the server lets several connections use the export
// as one: a flush on one covers writes on all, and all see each write.
func (o Offer) MultiConn() bool { return o.Flags&proto.FlagMultiConn != 0 }

// Offer is what the server said of the export.
func (c *Client) Offer() Offer { return Offer{c.name, c.info.size, c.info.flags, c.info.min} }

// Negotiate performs the handshake and leaves rw in transmission for another
// client, such as the kernel. It reads nothing beyond the handshake.
func Negotiate(rw io.ReadWriteCloser, o Options) (Offer, error) {
	c := &Client{opts: o, name: o.Export}
	err := c.attach(rw)
	return c.Offer(), err
}

// attach performs the handshake and sets c.rw and c.info.
func (c *Client) attach(rw io.ReadWriteCloser) error {
	h := &haggle{rw: rw}
	if err := h.greet(); err != nil {
		return err
	}
	if c.opts.TLS != nil {
		if err := h.startTLS(c.opts.TLS); err != nil {
			return err
		}
	}
	c.info = serverInfo{min: 1, prefer: 4096, max: proto.MaxPayload}
	if err := h.features(c); err != nil {
		return err
	}
	data := be.AppendUint32(nil, uint32(len(c.opts.Export)))
	data = append(data, c.opts.Export...)
	data = be.AppendUint16(data, 2)
	data = be.AppendUint16(data, proto.InfoName)
	data = be.AppendUint16(data, proto.InfoBlockSize)
	err := h.option(proto.OptGo, data, func(t proto.OptReply, p []byte) { c.learn(t, p) })
	c.rw = h.rw
	if err == nil {
		err = c.info.check()
	}
	return err
}

// maxMinBlock is the largest unit of requests that the specification allows.
const maxMinBlock = 64 << 10

// check refuses block sizes that are against the specification.
func (s *serverInfo) check() error {
	power := func(n uint32) bool { return n != 0 && n&(n-1) == 0 }
	if !power(s.min) || s.min > maxMinBlock || !power(s.prefer) || s.prefer < s.min || s.max < s.min {
		return fmt.Errorf("nbdclient: the server's block sizes are %d, %d and %d: not as the protocol says", s.min, s.prefer, s.max)
	}
	return nil
}

// learn stores an item of information from a reply to GO.
func (c *Client) learn(t proto.OptReply, p []byte) {
	if t != proto.RepInfo || len(p) < 2 {
		return
	}
	switch kind, p := be.Uint16(p), p[2:]; {
	case kind == proto.InfoExport && len(p) == 10:
		c.info.size, c.info.flags = be.Uint64(p), be.Uint16(p[8:])
	case kind == proto.InfoBlockSize && len(p) == 12:
		c.info.min, c.info.prefer, c.info.max = be.Uint32(p), be.Uint32(p[4:]), be.Uint32(p[8:])
	case kind == proto.InfoName:
		c.name = string(p)
	}
}

// haggle is a handshake under way.
type haggle struct{ rw io.ReadWriteCloser }

func (h *haggle) greet() error {
	var p [18]byte
	if _, err := io.ReadFull(h.rw, p[:]); err != nil {
		return err
	}
	if be.Uint64(p[:]) != proto.MagicInit || be.Uint64(p[8:]) != proto.MagicOption {
		return errors.New("nbdclient: not a newstyle NBD server")
	}
	flags := be.Uint16(p[16:]) & (proto.FlagFixedNewstyle | proto.FlagNoZeroes)
	if flags&proto.FlagFixedNewstyle == 0 {
		return errors.New("nbdclient: the server is too old")
	}
	_, err := h.rw.Write(be.AppendUint32(nil, uint32(flags)))
	return err
}

// OptionError is a server's refusal in the handshake.
type OptionError struct {
	Option, Reply uint32 // the protocol's numbers
	Text          string // the server's; may be empty
}

func (e *OptionError) Error() string {
	return fmt.Sprintf("nbdclient: the server refused option %d with error %d: %s", e.Option, e.Reply&^(1<<31), e.Text)
}

// option sends an option and passes each reply before the last to f.
func (h *haggle) option(o proto.Option, data []byte, f func(proto.OptReply, []byte)) error {
	p := be.AppendUint64(nil, proto.MagicOption)
	p = be.AppendUint32(p, uint32(o))
	p = be.AppendUint32(p, uint32(len(data)))
	if _, err := h.rw.Write(append(p, data...)); err != nil {
		return err
	}
	for {
		t, data, err := h.reply(o)
		if err != nil || t == proto.RepAck {
			return err
		}
		if t.IsErr() {
			return &OptionError{uint32(o), uint32(t), string(data)}
		}
		if f != nil {
			f(t, data)
		}
	}
}

func (h *haggle) reply(o proto.Option) (proto.OptReply, []byte, error) {
	var p [20]byte
	if _, err := io.ReadFull(h.rw, p[:]); err != nil {
		return 0, nil, err
	}
	n := be.Uint32(p[16:])
	if be.Uint64(p[:]) != proto.MagicOptReply || be.Uint32(p[8:]) != uint32(o) || n > 1<<20 {
		return 0, nil, errors.New("nbdclient: malformed reply to an option")
	}
	data := make([]byte, n)
	_, err := io.ReadFull(h.rw, data)
	return proto.OptReply(be.Uint32(p[12:])), data, err
}

func (h *haggle) startTLS(cfg *tls.Config) error {
	nc, ok := h.rw.(net.Conn)
	if !ok {
		return errors.New("nbdclient: TLS requires a network connection")
	}
	if err := h.option(proto.OptStartTLS, nil, nil); err != nil {
		return err
	}
	tc := tls.Client(nc, cfg)
	h.rw = tc
	return tc.Handshake()
}

// features negotiates the features that the options request. If the server lacks
// structured replies, the client does without them.
func (h *haggle) features(c *Client) error {
	if c.opts.Extended {
		if err := h.option(proto.OptExtendedHeaders, nil, nil); err != nil {
			return err
		}
		c.info.extended = true
	} else if c.opts.Simple || refused(h.option(proto.OptStructuredReply, nil, nil)) {
		return nil
	}
	data := be.AppendUint32(nil, uint32(len(c.opts.Export)))
	data = append(data, c.opts.Export...)
	data = be.AppendUint32(data, 1)
	data = be.AppendUint32(data, uint32(len(proto.ContextAllocation)))
	data = append(data, proto.ContextAllocation...)
	err := h.option(proto.OptSetMetaContext, data, func(t proto.OptReply, _ []byte) {
		c.info.meta = c.info.meta || t == proto.RepMetaContext
	})
	if refused(err) {
		c.info.meta, err = false, nil
	}
	return err
}

func refused(err error) bool {
	var o *OptionError
	return errors.As(err, &o)
}
