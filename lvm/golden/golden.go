// Package golden has disks with volume groups that lvm2 made in a real kernel, and what
// their volumes held there, for tests. lvm.TestKernelGolden makes them, from the scripts
// lvm/testdata/*.sh.
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
	Disks   = 7        // of a part
	Sectors = 32 << 11 // of a disk
	Block   = 4096     // what is kept of a disk is kept in blocks
)

// Parts are the scripts, each with disks of its own.
var Parts = []string{"plain", "thin", "other"}

//go:embed testdata/*.gz testdata/*.sums
var files embed.FS

// Unpack gives the blocks of a part's disks that are not empty. Each is kept behind the
// numbers of its disk and of the block.
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

// Sums are the checksums, SHA-256 in hexadecimal, of the first 4 MiB of each device that
// could be read. The part "missing" is "other" without its first disk.
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
