package blk

// Device is a block device. All methods are safe for concurrent use.
type Device interface {
	// Submit starts b. The bio must lie within the device and obey its Limits. A
	// device may end other bios with Invalid but need not check; the layer that takes
	// bios from outside does (checkdev). Submit may block for back-pressure only in
	// leaf devices and exports, and never for a bio with NoWait. It may run End
	// before it returns.
	Submit(b *Bio)
	// Limits returns the device's present size and abilities. Size and ReadOnly may
	// change while the device is open, the rest does not.
	Limits() Limits
	// Close waits for the bios that were submitted and releases the device.
	// Nothing is submitted during or after Close. It does not flush.
	Close() error
	// String returns the device's name for people, such as a path or a mapped
	// device's name.
	String() string
}

// Limits are a device's size and abilities: those of the kernel's queue_limits
// (include/linux/blkdev.h) that make sense outside a kernel. Abilities are data,
// never optional interfaces. A maximum of zero means "not supported" for optional ops
// and "no limit" for transfers.
type Limits struct {
	Size uint64 // sectors

	LogicalBlock  uint32 // bytes; smallest addressable unit; power of two, at least 512
	PhysicalBlock uint32 // bytes; smallest unit written without read-modify-write
	MinIO         uint32 // bytes; preferred smallest I/O
	OptIO         uint32 // bytes; preferred large I/O; 0 for none

	// TagSize is how many bytes a device keeps beside each logical block for whoever
	// uses it; 0: none. See [Bio].Tags.
	TagSize uint32

	MaxSectors uint32 // sectors in one read or write; 0 for no limit

	MaxDiscard         uint64 // sectors in one discard; 0: not supported
	DiscardGranularity uint32 // bytes; 0: not supported
	MaxWriteZeroes     uint64 // sectors in one write-zeroes; 0: not supported

	// VolatileCache: completed writes may be lost until a flush. Without it a
	// flush is a no-op and every write is durable when it ends.
	VolatileCache bool
	FUA           bool // writes and write-zeroes honour the FUA flag by themselves
	ReadOnly      bool
	Rotational    bool
	NoWait        bool // Submit honours the NoWait flag

	// ProcessCache: completed writes that no flush has covered may be lost with this
	// process even if the machine runs on.
	ProcessCache bool
	// ProcessMemory: flushed ones are lost as well, because they are in the memory
	// of this process. It comes with ProcessCache.
	ProcessMemory bool

	// StableWrites: the data of a write is read more than once (to log it, to
	// mirror it, to checksum it) and must not change before the write ends.
	// Submitters that cannot guarantee this set [Unstable].
	StableWrites bool
}

// NoLimit is a maximum that limits nothing, for MaxDiscard and MaxWriteZeroes.
const NoLimit = 1 << 54

// DefaultLimits are those of a plain disk of size sectors: 512-byte blocks, no
// volatile cache, no discard and no write-zeroes.
func DefaultLimits(size uint64) Limits {
	return Limits{Size: size, LogicalBlock: SectorSize, PhysicalBlock: SectorSize, MinIO: SectorSize}
}
