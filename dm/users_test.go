package dm

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// usersByReading computes the answer of Users from all tables.
func (r *rig) usersByReading(n Number) (names []string) {
	for _, d := range r.c.List() {
		if slices.Contains(d.Deps(false), n) {
			names = append(names, d.Name())
		}
	}
	return names
}

func namesOf(ds []*Device) (names []string) {
	for _, d := range ds {
		names = append(names, d.Name())
	}
	return names
}

// Users and Writers equal what reading all tables gives, whatever is loaded, resumed,
// cleared, exchanged, renamed and removed.
func TestUsers(t *testing.T) {
	r := newRig(t)
	rng := rand.New(rand.NewPCG(1, 2))
	lower := func() string {
		if n := rng.IntN(8); n > 3 {
			return fmt.Sprint("/dev/mapper/d", n)
		}
		return fmt.Sprint("g", rng.IntN(4))
	}
	for range 2000 {
		name := fmt.Sprint("d", rng.IntN(8))
		d, err := r.c.Name(name)
		if err != nil {
			if d, err = r.c.Create(name, "", -1); err != nil {
				t.Fatal(err)
			}
		}
		lines := specs(fmt.Sprintf("0 8 shift %s 0", lower()), fmt.Sprintf("8 8 shift %s 0", lower()))
		mode := Mode{Write: rng.IntN(2) == 0}
		switch rng.IntN(7) { // many are refused
		case 0, 1, 2:
			if d.Load(lines, mode) == nil && rng.IntN(2) == 0 {
				_ = d.Resume(ctx, false)
			}
		case 3:
			d.Clear()
		case 4:
			_ = Exchange(ctx, []Change{{Device: d, Specs: lines, Mode: mode}})
		case 5:
			_ = d.Rename(fmt.Sprint("d", rng.IntN(8)))
		case 6:
			_, _ = d.Remove(false)
		}
		r.checkUsers()
	}
}

func (r *rig) checkUsers() {
	r.t.Helper()
	for i := range 4 {
		name := fmt.Sprint("g", i)
		n := Number{Major: 7, Minor: uint32(i)}
		if got, want := namesOf(r.c.Users(name)), r.usersByReading(n); !slices.Equal(got, want) {
			r.t.Fatalf("%s has the users %v, tables say %v", name, got, want)
		}
		want := slices.DeleteFunc(r.usersByReading(n), func(name string) bool {
			d, _ := r.c.Name(name)
			return !d.table().has(func(l *Dev) bool { return l.Number == n && l.Write })
		})
		if got := namesOf(r.c.Writers(name)); !slices.Equal(got, want) {
			r.t.Fatalf("%s has the writers %v, tables say %v", name, got, want)
		}
	}
	for _, d := range r.c.List() {
		if got, want := namesOf(r.c.Users("/dev/mapper/"+d.Name())), r.usersByReading(d.Number()); !slices.Equal(got, want) {
			r.t.Fatalf("%s has the users %v, tables say %v", d.Name(), got, want)
		}
	}
}

func TestUsersForgetWhoIsGone(t *testing.T) {
	r := newRig(t)
	r.device("d", "0 8 shift g1 0")
	r.device("e", "0 8 shift /dev/mapper/d 0")
	r.must(r.c.Close())
	if n := len(r.c.users.of); n > 0 {
		t.Errorf("%d entries are left", n)
	}
}
