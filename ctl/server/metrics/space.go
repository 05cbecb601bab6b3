package metrics

import (
	"path/filepath"
	"slices"
	"strings"
)

// space is how full a file system is, and which one it is.
type space struct {
	id         uint64
	free, size uint64 // bytes
}

// places are the directories of files that devices are on.
type places map[string]bool

// add notes the directory of a disk that is a file.
func (ps places) add(source string) {
	if strings.HasPrefix(source, "/") && !strings.HasPrefix(source, "/dev/") {
		ps[filepath.Dir(source)] = true
	}
}

// hosts tells of each file system once, by the directory that is first in order.
func (p *page) hosts(ps places, look func(dir string) (space, error)) {
	dirs := make([]string, 0, len(ps))
	for dir := range ps {
		dirs = append(dirs, dir)
	}
	slices.Sort(dirs)
	told := make(map[uint64]bool)
	for _, dir := range dirs {
		s, err := look(dir)
		if err != nil || told[s.id] {
			continue
		}
		told[s.id] = true
		ls := label("directory", deviceLabel(dir))
		p.set(hostFree, ls, float64(s.free))
		p.set(hostSize, ls, float64(s.size))
	}
}
