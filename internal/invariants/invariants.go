// Package invariants holds checks that are too dear for production. They are
// on in builds with -race or with -tags invariants.
package invariants

import "fmt"

// Check panics with the message unless ok. Call it under if [Enabled], so that
// production builds evaluate nothing.
func Check(ok bool, format string, args ...any) {
	if !ok {
		panic("invariant violated: " + fmt.Sprintf(format, args...))
	}
}
