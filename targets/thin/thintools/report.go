package thintools

import (
	"fmt"

	"udm/targets/thin/thinmeta"
)

// maxDamage is how many damages a report lists; it counts the others.
const maxDamage = 1000

// Damage is one thing that is wrong.
type Damage struct {
	Fatal bool // not a mere leak
	Err   error
}

// Report is what Check found.
type Report struct {
	Super    thinmeta.Super
	Devices  map[uint32]thinmeta.Details
	Damages  []Damage                          // the first ones
	Fatal    int                               // number of fatal damages
	NonFatal int                               // number of the others
	Leaked   struct{ Data, Metadata []uint64 } // blocks counted once and used never

	FreeMetadata uint64 // blocks
}

// Err is nil if the metadata is in order.
func (r *Report) Err() error {
	if r.Fatal+r.NonFatal == 0 {
		return nil
	}
	more := ""
	if n := r.Fatal + r.NonFatal - 1; n > 0 {
		more = fmt.Sprintf(" (and %d more)", n)
	}
	return fmt.Errorf("%w%s", r.Damages[0].Err, more)
}

func (r *Report) add(fatal bool, err error) {
	if fatal {
		r.Fatal++
	} else {
		r.NonFatal++
	}
	if len(r.Damages) < maxDamage {
		r.Damages = append(r.Damages, Damage{fatal, err})
	}
}
