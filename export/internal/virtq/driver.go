package virtq

// Buf is a buffer of a request, by its guest address.
type Buf struct {
	Addr uint64
	Len  uint32
}

// Driver is the driver's side of a ring. It is used by one goroutine at a time.
type Driver interface {
	// Free is the number of free descriptors.
	Free() int
	// Add adds a request with buffers for the device to read (out) and to write (in),
	// and returns its head; false if there is no room. The device sees it after
	// Publish.
	Add(out, in []Buf) (head uint16, ok bool)
	// Publish makes added requests visible to the device, and reports whether it
	// wants a kick.
	Publish() (kick bool)
	// Reap returns a request that the device has completed, or false if there is
	// none.
	Reap() (head uint16, written uint32, ok bool)
	// Park requests a notification of the next completion, and reports whether
	// nothing is complete. If so the caller may sleep until it is notified.
	Park() bool
}

// driverCore is what both kinds of driver have.
type driverCore struct {
	features Features
	size     int
	rings    Rings
	tables   []byte // indirect tables: perTable descriptors for each head
	at       uint64 // guest address of tables
	perTable int
}

// NewDriver initializes a ring, clearing its memory. With Indirect, tables is memory
// for the indirect tables of all heads, at guest address at.
func NewDriver(size int, f Features, r Rings, tables []byte, at uint64) (Driver, error) {
	r, err := r.checked(size, f.Packed)
	if err != nil {
		return nil, err
	}
	clear(r.Desc)
	clear(r.Avail)
	clear(r.Used)
	c := driverCore{features: f, size: size, rings: r, tables: tables, at: at, perTable: len(tables) / 16 / size}
	if f.Packed {
		return newPackedDriver(c), nil
	}
	return newSplitDriver(c), nil
}
