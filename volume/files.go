package volume

import "udm/blk"

// Files are the files that the manager makes and looks at: those of the machine
// ([HostFiles]), or in a test of a file system that loses power and runs full.
// Paths are absolute, sizes are in bytes, files are sparse. What an error or a
// power cut leaves of a call is its state before or after, and of several files
// any part; on return without an error all of it is durable.
type Files interface {
	// Make makes files of zeroes. EEXIST: one is there.
	Make(fs []File) error
	// Link gives files a second name each, in place of nothing. EEXIST: a name is
	// taken by another file.
	Link(names []Names) error
	// Remove takes names away. One that is not there does not matter.
	Remove(paths []string) error
	// Resize cuts a file, or adds zeroes.
	Resize(path string, size uint64) error
	// Same reports whether two paths are there and mean the same file.
	Same(a, b string) bool
	// Stat tells about a file. ENOENT: it is not there.
	Stat(path string) (Stat, error)
	// List is the names of the files in a directory, ascending; none if it is not
	// there.
	List(dir string) ([]string, error)
	// Open opens a file, with a tail that is shorter than a sector left out.
	Open(path string, write bool) (blk.Device, error)
	// ReadTail reads what is behind the last whole sector of a file.
	ReadTail(path string) ([]byte, error)
}

// File is a file to be made.
type File struct {
	Path string `json:"path"`
	Size uint64 `json:"size"`
	Text []byte `json:"text,omitempty"` // at its beginning
}

// Names are two names of a file.
type Names struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// Stat is what there is to know about a file, in bytes.
type Stat struct {
	Size, Allocated uint64
	ModTime         int64 // nanoseconds since 1970
}
