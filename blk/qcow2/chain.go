package qcow2

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// maxChain is the maximum number of files in a chain.
const maxChain = 128

// file is a file open for reading.
type file struct {
	io.ReaderAt
	io.Closer
	size int64
	info os.FileInfo // nil in tests
}

// opener opens a file.
type opener func(path string) (*file, error)

func openFile(path string) (*file, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	size, err := f.Seek(0, io.SeekEnd) // also works for block devices
	if err == nil && info.IsDir() {
		err = fmt.Errorf("%s is a directory", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &file{f, f, size, info}, nil
}

// readFull reads p; bytes beyond the end of the file are zero.
func readFull(f *file, p []byte, off int64) error {
	n, err := f.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		clear(p[n:])
		err = nil
	}
	return err
}

// layer is one image of a chain.
type layer struct {
	*header // nil: raw
	path    string
	f       *file  // tables, and compressed clusters
	data    *file  // the clusters; f or another file
	size    uint64 // bytes, a multiple of a sector
}

func (l *layer) close() error {
	err := l.f.Close()
	if l.data != l.f {
		err = errors.Join(err, l.data.Close())
	}
	return err
}

func (l *layer) clusterSize() uint64 { return 1 << l.bits }

// openChain opens an image and its backing files.
func openChain(path string, files opener, o Options) (chain []*layer, err error) {
	defer func() {
		if err != nil {
			closeChain(chain)
		}
	}()
	for format := "qcow2"; ; {
		l, err := openLayer(path, format, files, o)
		if err != nil {
			return chain, err
		}
		chain = append(chain, l)
		for _, above := range chain[:len(chain)-1] {
			if above.path == l.path || above.f.info != nil && os.SameFile(above.f.info, l.f.info) {
				return chain, fmt.Errorf("%s is its own backing file", path)
			}
		}
		switch {
		case l.header == nil || l.backing == "":
			return chain, nil
		case len(chain) == maxChain:
			return chain, fmt.Errorf("%s has a chain of more than %d files", chain[0].path, maxChain)
		}
		format = l.format
		if path, err = beside(path, l.backing); err != nil {
			return chain, err
		}
	}
}

// beside returns the file that an image names, whose path is relative to the image.
func beside(image, name string) (string, error) {
	scheme, _, ok := strings.Cut(name, ":")
	switch {
	case strings.HasPrefix(name, "file:"):
		name = strings.TrimPrefix(name, "file:")
	case ok && !strings.Contains(scheme, "/"):
		return "", fmt.Errorf("%s has the backing file %q: only files are supported; change it with qemu-img rebase -u", image, name)
	}
	if filepath.IsAbs(name) {
		return name, nil
	}
	return filepath.Join(filepath.Dir(image), name), nil
}

// openLayer opens a file as a layer.
func openLayer(path, format string, files opener, o Options) (*layer, error) {
	f, err := files(path)
	if err != nil {
		return nil, err
	}
	l := &layer{path: path, f: f, data: f, size: sectorsUp(uint64(f.size))}
	switch {
	case format == formatRaw, format == noFormat && !isQcow2(f):
		return l, nil
	case format != noFormat && format != "qcow2":
		err = fmt.Errorf("%s has the format %q; raw and qcow2 are supported: convert it with qemu-img", path, format)
	default:
		err = l.read(files, o)
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// read reads the header of an image and opens its data file.
func (l *layer) read(files opener, o Options) error {
	h, err := readHeader(l.f)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", l.path, err)
	case h.zstd && o.Zstd == nil:
		return fmt.Errorf("%s: its clusters are compressed by zstd, which is not supported; convert it with qemu-img", l.path)
	}
	l.header, l.size = h, sectorsUp(h.size)
	if h.features&featDataFile == 0 {
		return nil
	}
	name, err := beside(l.path, h.dataFile)
	if err != nil {
		return err
	}
	data, err := files(name)
	if err == nil {
		l.data = data
	}
	return err
}
