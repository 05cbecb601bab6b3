package dm

import (
	"cmp"
	"slices"
	"sync/atomic"
	"syscall"
)

// Param is a setting of all targets of a module that may be changed while they run, as
// Linux has it in /sys/module/MODULE/parameters/NAME. All methods are safe for
// concurrent use.
type Param struct {
	Name  string // MODULE.NAME
	Doc   string // one line: unit and meaning
	value atomic.Uint32
}

// NewParam returns a parameter with a default value.
func NewParam(name string, value uint32, doc string) *Param {
	p := &Param{Name: name, Doc: doc}
	p.value.Store(value)
	return p
}

// Get returns the value.
func (p *Param) Get() uint32 { return p.value.Load() }

// Set changes the value. Doc says when targets take notice of it.
func (p *Param) Set(value uint32) { p.value.Store(value) }

// Params returns the parameters of types in the order of their names.
func Params(types ...*Type) []*Param {
	var ps []*Param
	for _, t := range types {
		ps = append(ps, t.Params...)
	}
	slices.SortFunc(ps, func(a, b *Param) int { return cmp.Compare(a.Name, b.Name) })
	return slices.Compact(ps)
}

// FindParam returns the parameter with a name. ENOENT: there is none.
func FindParam(ps []*Param, name string) (*Param, error) {
	i := slices.IndexFunc(ps, func(p *Param) bool { return p.Name == name })
	if i < 0 {
		return nil, Errorf(syscall.ENOENT, "there is no parameter named %q", name)
	}
	return ps[i], nil
}

// Params returns the parameters of the target types in the order of their names.
func (c *Control) Params() []*Param { return Params(c.Types()...) }

// Param returns the parameter of the target's type with a name, or nil if there is none.
func (t *Target) Param(name string) *Param {
	for _, p := range t.Type.Params {
		if p.Name == name {
			return p
		}
	}
	return nil
}
