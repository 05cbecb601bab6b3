package dm

import (
	"cmp"
	"slices"
	"sync/atomic"
	"syscall"
)

// Param is a number that all targets of a module go by, and that may be changed
// while they run: what Linux shows as /sys/module/MODULE/parameters/NAME. All
// methods are safe for concurrent use.
type Param struct {
	Name  string // MODULE.NAME
	Doc   string // one line: unit and meaning
	value atomic.Uint32
}

// NewParam makes a parameter with its default.
func NewParam(name string, value uint32, doc string) *Param {
	p := &Param{Name: name, Doc: doc}
	p.value.Store(value)
	return p
}

// Get is the value.
func (p *Param) Get() uint32 { return p.value.Load() }

// Set changes the value. When targets take notice is said in Doc.
func (p *Param) Set(value uint32) { p.value.Store(value) }

// Params lists the parameters of types, ascending by name.
func Params(types ...*Type) []*Param {
	var ps []*Param
	for _, t := range types {
		ps = append(ps, t.Params...)
	}
	slices.SortFunc(ps, func(a, b *Param) int { return cmp.Compare(a.Name, b.Name) })
	return slices.Compact(ps)
}

// FindParam is the parameter of a name; ENOENT when there is none.
func FindParam(ps []*Param, name string) (*Param, error) {
	i := slices.IndexFunc(ps, func(p *Param) bool { return p.Name == name })
	if i < 0 {
		return nil, Errorf(syscall.ENOENT, "there is no parameter named %q", name)
	}
	return ps[i], nil
}

// Params lists the parameters of the target types, ascending by name.
func (c *Control) Params() []*Param { return Params(c.Types()...) }

// Param is the parameter of the target's type with that name, nil if it has none.
func (t *Target) Param(name string) *Param {
	for _, p := range t.Type.Params {
		if p.Name == name {
			return p
		}
	}
	return nil
}
