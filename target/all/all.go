// Package all is the list of the target types that udm has.
package all

import (
	"udm/dm"
	"udm/target/delay"
	errortarget "udm/target/error"
	"udm/target/flakey"
	"udm/target/linear"
	"udm/target/snapshot"
	"udm/target/striped"
	"udm/target/thin"
	"udm/target/zero"
)

// Types returns one type for each table keyword, to be given to dm.NewControl.
func Types() []*dm.Type {
	types := []*dm.Type{
		delay.Type(),
		errortarget.Type(),
		flakey.Type(),
		linear.Type(),
		striped.Type(),
		thin.PoolType(),
		thin.Type(),
		zero.Type(),
	}
	return append(types, snapshot.Types()...)
}
