package volume

import "udm/blk"

// Files is access to the files that the manager makes and reads: those of the machine
// ([HostFiles]), or in tests those of a file system that loses power and runs full.
// Paths are absolute, sizes are in bytes, files are sparse. After an error or a power
// cut, a call has happened or not, and one for several files for any part of them. A
// call that returns without an error is durable.
type Files interface {
	// Make creates files of zeroes. EEXIST: one of them exists.
	Make(fs []File) error
	// Link gives files a second name each and never replaces a file. EEXIST: the name
	// belongs to another file.
	Link(names []Names) error
	// Remove removes names. It ignores a name that does not exist.
	Remove(paths []string) error
	// Resize truncates a file, or extends it with zeroes; whole allocates them.
	Resize(path string, size uint64, whole bool) error
	// Same reports whether both paths exist and name the same file.
	Same(a, b string) bool
	// Stat describes a file. ENOENT: it does not exist.
	Stat(path string) (Stat, error)
	// List returns the names of the files in a directory in ascending order; none if
	// the directory does not exist.
	List(dir string) ([]string, error)
	// Open opens a file. A partial sector at its end is left out.
	Open(path string, write bool) (blk.Device, error)
	// ReadTail reads the partial sector at the end of a file.
	ReadTail(path string) ([]byte, error)
}

// File is a file to be created.
type File struct {
	Path string `json:"path"`
	Size uint64 `json:"size"`
	Text []byte `json:"text,omitempty"` // content of its start
	// Whole allocates all of the file, if the file system can.
	Whole bool `json:"whole,omitempty"`
}

// Names are two names of a file.
type Names struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// Stat describes a file; sizes are in bytes.
type Stat struct {
	Size, Allocated uint64
	ModTime         int64 // nanoseconds since 1970
}
