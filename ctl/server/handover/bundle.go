package handover

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"sync"
)

// Bundle is what a process hands over: named parts, each a value and open files. It is
// safe for concurrent use. The zero value is empty.
type Bundle struct {
	mu    sync.Mutex
	parts map[string]part // guarded by mu
}

type part struct {
	value json.RawMessage
	files []*os.File
}

// Put adds a part, and takes over its files.
func (b *Bundle) Put(name string, value any, files ...*os.File) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	b.put(name, part{text, files})
	return nil
}

func (b *Bundle) put(name string, p part) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.parts == nil {
		b.parts = make(map[string]part)
	}
	b.parts[name] = p
}

// Take removes a part; ok reports whether there was one. The caller closes the files.
func (b *Bundle) Take(name string, value any) (files []*os.File, ok bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.parts[name]
	if !ok {
		return nil, false, nil
	}
	delete(b.parts, name)
	if err := json.Unmarshal(p.value, value); err != nil {
		return p.files, true, fmt.Errorf("what was handed over as %s is not understood: %w", name, err)
	}
	return p.files, true, nil
}

// Names are the parts that were not taken.
func (b *Bundle) Names() (names []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name := range b.parts {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Close closes the files of all parts.
func (b *Bundle) Close() { b.Keep(func(string) bool { return false }) }

// Keep drops all parts but some.
func (b *Bundle) Keep(keep func(name string) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, p := range b.parts {
		if keep(name) {
			continue
		}
		for _, f := range p.files {
			f.Close()
		}
		delete(b.parts, name)
	}
}
