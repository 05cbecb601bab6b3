// Package all is the list of the target types that udm has.
package all

import (
	"udm/dm"
	"udm/target/delay"
	"udm/target/dust"
	errortarget "udm/target/error"
	"udm/target/flakey"
	"udm/target/linear"
	logwrites "udm/target/log-writes"
	"udm/target/snapshot"
	"udm/target/striped"
	switchtarget "udm/target/switch"
	"udm/target/thin"
	"udm/target/unstriped"
	"udm/target/zero"
)

// Types returns one type for each table keyword, to be given to dm.NewControl.
func Types() []*dm.Type {
	types := []*dm.Type{
		delay.Type(),
		dust.Type(),
		errortarget.Type(),
		flakey.Type(),
		linear.Type(),
		logwrites.Type(),
		striped.Type(),
		switchtarget.Type(),
		unstriped.Type(),
		thin.PoolType(),
		thin.Type(),
		zero.Type(),
	}
	return append(types, snapshot.Types()...)
}
