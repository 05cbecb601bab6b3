package nbd

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"udm/internal/nbd/proto"
)

var be = binary.BigEndian

// Limits of the handshake.
const (
	maxRefusals   = 1024     // refused options of one client
	maxOptionData = 64 << 10 // bytes of data of one option
	replyChunk    = 64 << 10 // bytes of replies sent at once
)

// replyMode is the form of replies and of request headers.
type replyMode uint8

const (
	simple     replyMode = iota
	structured           // NBD_OPT_STRUCTURED_REPLY was accepted
	extended             // NBD_OPT_EXTENDED_HEADERS was accepted
)

// handshake is the phase in which a client chooses its export:
//
//	greet ──▶ options ──┬─ EXPORT_NAME, GO ──▶ transmission
//	            ▲    │  ├─ ABORT, end of file ──▶ closed
//	            └────┘  └─ a violation that cannot be answered ──▶ closed
//	          STARTTLS discards what was negotiated and continues with options
//
// The handshake reads nothing beyond the current option, so that bytes which
// arrived in plain text are never treated as encrypted.
type handshake struct {
	c        *conn
	rw       io.ReadWriter // the connection, or TLS over it
	out      bytes.Buffer  // replies not sent yet
	opt      proto.Option  // the current option
	fixed    bool
	noZeroes bool
	secure   bool // TLS is on
	refusals int

	mode     replyMode
	metaName string   // export of the last accepted SET_META_CONTEXT …
	chosen   []chosen // … and what that selected

	session *session // set when the client enters transmission
}

// session is the result of the handshake.
type session struct {
	rw     io.ReadWriter
	export *Export
	mode   replyMode
	chosen []chosen
	flags  uint16
	size   uint64 // bytes
}

// refusal is an error that is sent to the client as the reply to its option.
type refusal struct {
	reply proto.OptReply
	text  string
}

func (r *refusal) Error() string { return r.text }

func refuse(reply proto.OptReply, format string, args ...any) error {
	return &refusal{reply, fmt.Sprintf(format, args...)}
}

var errGoodbye = errors.New("nbd: the client ended the handshake")

// run returns the session, or nil without an error if the client hung up before
// it chose an export.
func (h *handshake) run() (*session, error) {
	err := h.greet()
	for err == nil && h.session == nil {
		err = h.next()
	}
	if err == io.EOF || err == errGoodbye {
		err = nil
	}
	return h.session, err
}

func (h *handshake) greet() error {
	hello := be.AppendUint64(nil, proto.MagicInit)
	hello = be.AppendUint64(hello, proto.MagicOption)
	hello = be.AppendUint16(hello, proto.FlagFixedNewstyle|proto.FlagNoZeroes)
	if _, err := h.rw.Write(hello); err != nil {
		return err
	}
	var p [4]byte
	if _, err := io.ReadFull(h.rw, p[:]); err != nil {
		return err
	}
	flags := be.Uint32(p[:])
	if flags&^(proto.FlagFixedNewstyle|proto.FlagNoZeroes) != 0 {
		return fmt.Errorf("nbd: unknown client flags %#x", flags)
	}
	h.fixed, h.noZeroes = flags&proto.FlagFixedNewstyle != 0, flags&proto.FlagNoZeroes != 0
	return nil
}

// next reads one option and answers it. A client may query thousands of exports, so
// an accepted option gives it time for the next; refused options are counted.
func (h *handshake) next() error {
	var p [16]byte
	if _, err := io.ReadFull(h.rw, p[:]); err != nil {
		return err
	}
	if be.Uint64(p[:]) != proto.MagicOption {
		return fmt.Errorf("nbd: option with magic %#x", be.Uint64(p[:]))
	}
	h.opt = proto.Option(be.Uint32(p[8:]))
	data, err := h.data(be.Uint32(p[12:]))
	if err == nil {
		err = h.answer(data)
	}
	var r *refusal
	switch {
	case errors.As(err, &r):
		err = h.refused(r)
	case err == nil:
		h.moreTime()
	}
	if ferr := h.flush(); err == nil {
		err = ferr
	}
	return err
}

// refused sends a refusal to the client if the handshake can continue.
func (h *handshake) refused(r *refusal) error {
	if h.opt == proto.OptExportName {
		return r // its only error reply is to close the connection
	}
	if h.refusals++; h.refusals > maxRefusals {
		return errors.New("nbd: too many options were refused")
	}
	h.reply(r.reply, cutString(nil, r.text))
	return nil
}

// data reads the data of an option, or skips it if it is too long.
func (h *handshake) data(n uint32) ([]byte, error) {
	if n > maxOptionData {
		if _, err := io.CopyN(io.Discard, h.rw, int64(n)); err != nil {
			return nil, unexpected(err)
		}
		return nil, refuse(proto.RepErrTooBig, "option with %d bytes of data; the limit is %d", n, maxOptionData)
	}
	data := make([]byte, n)
	_, err := io.ReadFull(h.rw, data)
	return data, unexpected(err)
}

// unexpected turns io.EOF into io.ErrUnexpectedEOF, for reads of announced data.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// answer performs the option. It checks for refusals in the order that the
// protocol requires.
func (h *handshake) answer(data []byte) error {
	cfg := &h.c.srv.cfg
	switch {
	case h.opt == proto.OptAbort:
		h.reply(proto.RepAck, nil)
		h.flush()
		return errGoodbye
	case h.c.stopping():
		return refuse(proto.RepErrShutdown, "the server is shutting down")
	case h.opt == proto.OptStartTLS:
		return h.startTLS(data)
	case cfg.TLS.Mode == TLSRequire && !h.secure:
		return refuse(proto.RepErrTLSReqd, "this server requires TLS")
	}
	f, ok := optionFuncs[h.opt]
	if !ok {
		return refuse(proto.RepErrUnsup, "unknown option %d", h.opt)
	}
	return f(h, data)
}

func (h *handshake) startTLS(data []byte) error {
	cfg := &h.c.srv.cfg.TLS
	switch {
	case len(data) != 0:
		return refuse(proto.RepErrInvalid, "STARTTLS has no data")
	case h.secure:
		return refuse(proto.RepErrInvalid, "TLS is already on")
	case cfg.Mode == TLSOff || !h.fixed:
		return refuse(proto.RepErrPolicy, "TLS is not configured on this server")
	}
	h.reply(proto.RepAck, nil)
	if err := h.flush(); err != nil {
		return err
	}
	tc := tls.Server(asConn(h.rw), cfg.Config)
	if err := tc.Handshake(); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	h.rw, h.secure = tc, true
	h.mode, h.chosen, h.metaName = simple, nil, ""
	return nil
}

// cutString appends s to p, shortened to the longest string that the protocol allows.
func cutString(p []byte, s string) []byte {
	if len(s) > proto.MaxString {
		s = strings.ToValidUTF8(s[:proto.MaxString-len("…")], "") + "…"
	}
	return append(p, s...)
}

// reply queues one reply to the current option.
func (h *handshake) reply(t proto.OptReply, data []byte) {
	var p [20]byte
	be.PutUint64(p[:], proto.MagicOptReply)
	be.PutUint32(p[8:], uint32(h.opt))
	be.PutUint32(p[12:], uint32(t))
	be.PutUint32(p[16:], uint32(len(data)))
	h.out.Write(p[:])
	h.out.Write(data)
}

func (h *handshake) flush() error {
	if h.out.Len() == 0 {
		return nil
	}
	_, err := h.rw.Write(h.out.Bytes())
	h.out.Reset()
	return err
}

// moreTime sets the deadline by which the client must have sent its next acceptable
// option. If the server shuts down, the client only reads the refusal.
func (h *handshake) moreTime() {
	h.c.setDeadline(time.Now().Add(h.c.srv.cfg.HandshakeTimeout))
	if h.c.stopping() {
		h.c.setDeadline(time.Now().Add(refusalTime))
	}
}
