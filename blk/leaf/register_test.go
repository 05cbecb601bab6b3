package leaf

import (
	"errors"
	"syscall"
	"testing"

	"udm/blk"
	"udm/dm"
	"udm/env"
)

// A registered disk has its number whenever it is open, and no other disk gets it.
func TestRegister(t *testing.T) {
	o := New(env.Real())
	a, b := newFile(t, "a", 4096), newFile(t, "b", 4096)
	at := blk.Number{Major: 7, Minor: 0}
	if err := o.Register(a, at); err != nil {
		t.Fatal(err)
	}
	if err := o.Register(a, at); err != nil {
		t.Errorf("told twice: %v", err)
	}
	for _, busy := range []error{
		o.Register(b, at),
		o.Register(a, blk.Number{Major: 8, Minor: 16}),
	} {
		if !errors.Is(busy, syscall.EBUSY) {
			t.Errorf("%v, want EBUSY", busy)
		}
	}
	for _, name := range []string{"relative", "mem:none", ""} {
		if o.Register(name, blk.Number{Major: 8}) == nil {
			t.Errorf("%q is registered", name)
		}
	}
	db, nb := open(t, o, b, true)
	if nb != (blk.Number{Major: 7, Minor: 1}) {
		t.Errorf("another disk gets %v", nb)
	}
	if err := o.Register(b, blk.Number{Major: 8}); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("a disk that is open as %v: %v", nb, err)
	}
	for range 2 {
		da, na := open(t, o, "7:0", true) // not open yet, and yet there
		if na != at || o.Name(na) != a {
			t.Errorf("%v, %s", na, o.Name(na))
		}
		closeAll(t, da)
	}
	if err := o.Unregister(at); err != nil {
		t.Error(err)
	}
	if err := o.Unregister(at); !errors.Is(err, syscall.ENXIO) {
		t.Error(err)
	}
	if _, _, err := o.Open("7:0", false); !errors.Is(err, syscall.ENXIO) {
		t.Errorf("a number that was given up: %v", err)
	}
	closeAll(t, db)
}

// A disk that is not there yet has its number when it comes.
func TestRegisterBeforeTheDisk(t *testing.T) {
	o := New(env.Real())
	at := blk.Number{Major: 8, Minor: 16}
	path := newFile(t, "a", 4096)
	if err := o.Register(path+".late", at); err != nil {
		t.Fatal(err)
	}
	if _, _, err := o.Open("8:16", false); !errors.Is(err, syscall.ENODEV) {
		t.Error(err)
	}
	if err := o.Unregister(at); err != nil {
		t.Fatal(err)
	}
	if err := o.Register(path, at); err != nil {
		t.Fatal(err)
	}
	d, n := open(t, o, path, false)
	if n != at {
		t.Errorf("%v", n)
	}
	closeAll(t, d)
}

// A block device of the host keeps its number, but not one that a mapped device has here.
func TestNumbersOfBlockDevices(t *testing.T) {
	o := New(env.Real())
	o.mu.Lock()
	defer o.mu.Unlock()
	for own, want := range map[blk.Number]blk.Number{
		{Major: 8, Minor: 16}:       {Major: 8, Minor: 16},
		{Major: dm.Major, Minor: 0}: {Major: extMajor, Minor: 0},
	} {
		if got := o.numberLocked(&source{number: own}); got != want {
			t.Errorf("%v becomes %v, want %v", own, got, want)
		}
	}
}
