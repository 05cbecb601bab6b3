package thintools

import (
	"fmt"

	"udm/targets/thin/thinmeta"
)

// maxDamage is how many damages a report lists; the others are only counted.
const maxDamage = 1000

// Damage is one fault in the metadata.
type Damage struct {
	Fatal bool // false for a leak or an underfull node
	Err   error
}

// Report is what Check found.
type Report struct {
	Super    thinmeta.Super
	Devices  map[uint32]thinmeta.Details
	Damages  []Damage                          // the first 1000
	Fatal    int                               // number of fatal damages
	NonFatal int                               // number of the others
	Leaked   struct{ Data, Metadata []uint64 } // blocks that are counted once but not used

	FreeMetadata uint64 // blocks
}

// Err returns nil if the metadata is sound.
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
