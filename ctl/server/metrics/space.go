package metrics

import (
	"path/filepath"
	"slices"
	"strings"
)

// space is the identity and the usage of a file system.
type space struct {
	id         uint64
	free, size uint64 // bytes
}

// hostSpace is spaceOf, but for tests.
var hostSpace = spaceOf

// places is the set of directories with files that devices use.
type places map[string]bool

// add adds the directory of a disk if the disk is a file.
func (ps places) add(source string) {
	if strings.HasPrefix(source, "/") && !strings.HasPrefix(source, "/dev/") {
		ps[filepath.Dir(source)] = true
	}
}

// hosts adds the metrics of each file system once, labeled with the alphabetically first of
// its directories.
func (p *page) hosts(ps places) {
	dirs := make([]string, 0, len(ps))
	for dir := range ps {
		dirs = append(dirs, dir)
	}
	slices.Sort(dirs)
	seen := make(map[uint64]bool)
	for _, dir := range dirs {
		s, err := hostSpace(dir)
		if err != nil || seen[s.id] {
			continue
		}
		seen[s.id] = true
		ls := label("directory", deviceLabel(dir))
		p.set(hostFree, ls, float64(s.free))
		p.set(hostSize, ls, float64(s.size))
	}
}
