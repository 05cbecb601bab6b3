// Package golden contains disks with volume groups that lvm2 made in a real kernel,
// and the content of their volumes, for tests. lvm.TestKernelGolden makes them from
// the scripts lvm/testdata/*.sh.
package golden

import (
	"compress/gzip"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

const (
	Disks   = 7        // number of disks of a part
	Sectors = 32 << 11 // size of a disk
	Block   = 4096     // bytes; disks are stored in blocks of this size
)

// Parts are the names of the scripts; each has its own disks.
var Parts = []string{"plain", "thin", "other"}

//go:embed testdata/*.gz testdata/*.sums
var files embed.FS

// Unpack calls write for the nonzero blocks of a part's disks.
func Unpack(part string, write func(disk int, offset int64, p []byte) error) error {
	f, err := files.Open("testdata/" + part + ".disks.gz")
	if err != nil {
		return err
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	for record := make([]byte, 8+Block); ; {
		_, err := io.ReadFull(z, record)
		if err == nil {
			err = write(int(binary.LittleEndian.Uint32(record)), int64(binary.LittleEndian.Uint32(record[4:]))*Block, record[8:])
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// Write writes the disks of a part to files named d0, d1 and so on.
func Write(dir, part string) (paths []string, err error) {
	var open []*os.File
	defer func() {
		for _, f := range open {
			err = errors.Join(err, f.Close())
		}
	}()
	for i := range Disks {
		path := filepath.Join(dir, fmt.Sprint("d", i))
		f, err := os.Create(path)
		if err != nil {
			return nil, err
		}
		open, paths = append(open, f), append(paths, path)
		if err := f.Truncate(Sectors * 512); err != nil {
			return nil, err
		}
	}
	return paths, Unpack(part, func(disk int, offset int64, p []byte) error {
		_, err := open[disk].WriteAt(p, offset)
		return err
	})
}

// Sums returns the checksums (SHA-256 in hexadecimal) of the first 4 MiB of each
// readable device. The part "missing" is "other" without its first disk.
func Sums(part string) (map[string]string, error) {
	text, err := files.ReadFile("testdata/" + part + ".sums")
	if err != nil {
		return nil, err
	}
	sums := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, sum, _ := strings.Cut(strings.TrimSpace(line), " ")
		sums[name] = sum
	}
	return sums, nil
}
