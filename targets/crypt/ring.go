package crypt

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"sync"
	"syscall"

	"udm/dm"
	"udm/internal/secret"
)

// KeyName names a key in a [Ring], as tables do: ":SIZE:KIND:DESCRIPTION".
type KeyName struct{ Kind, Description string }

// Ring is a KeyStore in locked memory. The zero value has no keys.
type Ring struct {
	mu   sync.Mutex // a leaf
	keys map[KeyName]*secret.Bytes
}

// kinds are those of the kernel's keyring that crypt takes a key from as it is.
var kinds = []string{"logon", "user"}

// Set stores a key, in place of an older one with the name, and overwrites p.
func (r *Ring) Set(n KeyName, p []byte) error {
	defer clear(p)
	switch {
	case !slices.Contains(kinds, n.Kind):
		return dm.Errorf(syscall.EINVAL, "there are no keys of the type %q; use logon or user", n.Kind)
	case n.Description == "" || strings.ContainsAny(n.Description, " \t\n\\"):
		return dm.Errorf(syscall.EINVAL, "a key cannot be called %q; use a name without spaces", n.Description)
	case len(p) == 0 || len(p) > maxKey:
		return dm.Errorf(syscall.EINVAL, "a key of %d bytes is not possible; use 1 to %d", len(p), maxKey)
	}
	b := secret.Take(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.keys[n]; old != nil {
		old.Close()
	}
	if r.keys == nil {
		r.keys = make(map[KeyName]*secret.Bytes)
	}
	r.keys[n] = b
	return nil
}

const maxKey = 1024 // bytes

// Key implements [KeyStore].
func (r *Ring) Key(kind, description string) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.keys[KeyName{kind, description}]
	if b == nil {
		return nil, dm.Errorf(dm.ENOKEY, "there is no key %s:%s in the key store; udm key set adds it", kind, description)
	}
	return bytes.Clone(b.Bytes()), nil
}

// Remove overwrites and removes a key. Targets that use it go on.
func (r *Ring) Remove(n KeyName) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.keys[n]
	if b == nil {
		return dm.Errorf(dm.ENOKEY, "there is no key %s:%s in the key store; udm key ls lists the keys", n.Kind, n.Description)
	}
	b.Close()
	delete(r.keys, n)
	return nil
}

// List returns the names of all keys, ascending, and their sizes in bytes.
func (r *Ring) List() (names []KeyName, sizes []int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n := range r.keys {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b KeyName) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Description, b.Description))
	})
	for _, n := range names {
		sizes = append(sizes, r.keys[n].Len())
	}
	return names, sizes
}
