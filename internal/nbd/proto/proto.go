// Package proto defines the numbers and message layouts of the NBD protocol for
// the server and the client. All integers are big-endian.
//
// Specification: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
// and, for extended headers, its branch extension-ext-header. Names are those of
// the specification in Go's spelling.
//
//	request           0 magic:32  4 flags:16  6 type:16  8 cookie:64  16 offset:64  24 length:32          28 bytes
//	extended request  0 magic:32  4 flags:16  6 type:16  8 cookie:64  16 offset:64  24 length:64          32 bytes
//	simple reply      0 magic:32  4 error:32             8 cookie:64                                      16 bytes
//	structured chunk  0 magic:32  4 flags:16  6 type:16  8 cookie:64  16 length:32                        20 bytes
//	extended chunk    0 magic:32  4 flags:16  6 type:16  8 cookie:64  16 offset:64  24 length:64          32 bytes
package proto

import "fmt"

// Magic numbers.
const (
	MagicInit       = 0x4e42444d41474943 // "NBDMAGIC"
	MagicOption     = 0x49484156454f5054 // "IHAVEOPT"
	MagicOptReply   = 0x0003e889045565a9
	MagicRequest    = 0x25609513
	MagicExtRequest = 0x21e41c71
	MagicSimple     = 0x67446698
	MagicStructured = 0x668e33ef
	MagicExtReply   = 0x6e8a278c
)

// Handshake flags of the server and, with the same bits, of the client.
const (
	FlagFixedNewstyle = 1 << 0
	FlagNoZeroes      = 1 << 1
)

// Transmission flags.
const (
	FlagHasFlags        = 1 << 0
	FlagReadOnly        = 1 << 1
	FlagFlush           = 1 << 2
	FlagFUA             = 1 << 3
	FlagRotational      = 1 << 4
	FlagTrim            = 1 << 5
	FlagWriteZeroes     = 1 << 6
	FlagDF              = 1 << 7
	FlagMultiConn       = 1 << 8
	FlagCache           = 1 << 10
	FlagFastZero        = 1 << 11
	FlagStatusByPayload = 1 << 12
)

// Option is a request of the handshake.
type Option uint32

// Options.
const (
	OptExportName      Option = 1
	OptAbort           Option = 2
	OptList            Option = 3
	OptStartTLS        Option = 5
	OptInfo            Option = 6
	OptGo              Option = 7
	OptStructuredReply Option = 8
	OptListMetaContext Option = 9
	OptSetMetaContext  Option = 10
	OptExtendedHeaders Option = 11
)

// OptReply is the type of a reply to an option; errors have bit 31 set.
type OptReply uint32

// Replies to options.
const (
	RepAck         OptReply = 1
	RepServer      OptReply = 2
	RepInfo        OptReply = 3
	RepMetaContext OptReply = 4

	RepErrUnsup         OptReply = 1<<31 + 1
	RepErrPolicy        OptReply = 1<<31 + 2
	RepErrInvalid       OptReply = 1<<31 + 3
	RepErrPlatform      OptReply = 1<<31 + 4
	RepErrTLSReqd       OptReply = 1<<31 + 5
	RepErrUnknown       OptReply = 1<<31 + 6
	RepErrShutdown      OptReply = 1<<31 + 7
	RepErrBlockSizeReqd OptReply = 1<<31 + 8
	RepErrTooBig        OptReply = 1<<31 + 9
	RepErrExtHeaderReqd OptReply = 1<<31 + 10
)

// IsErr reports whether the reply refuses the option.
func (r OptReply) IsErr() bool { return r>>31 != 0 }

// Items of information about an export.
const (
	InfoExport      = 0
	InfoName        = 1
	InfoDescription = 2
	InfoBlockSize   = 3
)

// Cmd is the type of a request.
type Cmd uint16

// Commands.
const (
	CmdRead        Cmd = 0
	CmdWrite       Cmd = 1
	CmdDisc        Cmd = 2
	CmdFlush       Cmd = 3
	CmdTrim        Cmd = 4
	CmdCache       Cmd = 5
	CmdWriteZeroes Cmd = 6
	CmdBlockStatus Cmd = 7
)

// Command flags.
const (
	CmdFlagFUA        = 1 << 0
	CmdFlagNoHole     = 1 << 1
	CmdFlagDF         = 1 << 2
	CmdFlagReqOne     = 1 << 3
	CmdFlagFastZero   = 1 << 4
	CmdFlagPayloadLen = 1 << 5
)

// ReplyDone marks the last chunk of a reply.
const ReplyDone = 1 << 0

// Chunk is the type of a chunk of a structured or extended reply; errors have
// bit 15 set.
type Chunk uint16

// Chunks.
const (
	ChunkNone           Chunk = 0
	ChunkData           Chunk = 1
	ChunkHole           Chunk = 2
	ChunkBlockStatus    Chunk = 5
	ChunkBlockStatusExt Chunk = 6
	ChunkError          Chunk = 1<<15 + 1
	ChunkErrorOffset    Chunk = 1<<15 + 2
)

// IsErr reports whether the chunk reports an error.
func (c Chunk) IsErr() bool { return c>>15 != 0 }

// State bits of the context base:allocation.
const (
	StateHole = 1 << 0
	StateZero = 1 << 1
)

// ContextAllocation is the metadata context that every export has.
const ContextAllocation = "base:allocation"

// Sizes in bytes.
const (
	RequestSize    = 28
	ExtRequestSize = 32
	SimpleSize     = 16
	StructuredSize = 20
	ExtReplySize   = 32
	MaxString      = 4096
	MaxPayload     = 32 << 20 // of one read or write
)

// Errno is the protocol's error number: it crosses machines, so it is not the
// operating system's.
type Errno uint32

// Errors.
const (
	EPERM     Errno = 1
	EIO       Errno = 5
	ENOMEM    Errno = 12
	EINVAL    Errno = 22
	ENOSPC    Errno = 28
	EOVERFLOW Errno = 75
	ENOTSUP   Errno = 95
	ESHUTDOWN Errno = 108
)

var errnoText = map[Errno]string{
	EPERM: "operation not permitted", EIO: "input/output error", ENOMEM: "cannot allocate memory",
	EINVAL: "invalid argument", ENOSPC: "no space left on device", EOVERFLOW: "value too large",
	ENOTSUP: "operation not supported", ESHUTDOWN: "server is shutting down",
}

func (e Errno) Error() string {
	if s, ok := errnoText[e]; ok {
		return s
	}
	return fmt.Sprintf("NBD error %d", uint32(e))
}
