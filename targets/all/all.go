// Package all is the list of the target types that udm has.
package all

import (
	"slices"

	"udm/dm"
	"udm/targets/cache"
	"udm/targets/clone"
	"udm/targets/crypt"
	"udm/targets/delay"
	"udm/targets/dust"
	"udm/targets/ebs"
	"udm/targets/era"
	errortarget "udm/targets/error"
	"udm/targets/flakey"
	"udm/targets/integrity"
	"udm/targets/linear"
	logwrites "udm/targets/log-writes"
	"udm/targets/mirror"
	"udm/targets/multipath"
	"udm/targets/snapshot"
	"udm/targets/striped"
	switchtarget "udm/targets/switch"
	"udm/targets/thin"
	"udm/targets/thin/thinrescue"
	"udm/targets/unstriped"
	"udm/targets/verity"
	"udm/targets/writecache"
	"udm/targets/zero"
)

// Types returns one type for each table keyword, to be given to dm.NewControl.
func Types() []*dm.Type { return TypesWithKeys(nil) }

// TypesWithKeys is Types with a store of the keys that tables of crypt name; nil: there is none.
func TypesWithKeys(keys crypt.KeyStore) []*dm.Type {
	types := []*dm.Type{
		cache.Type(),
		clone.Type(),
		crypt.Type(keys),
		delay.Type(),
		dust.Type(),
		ebs.Type(),
		era.Type(),
		errortarget.Type(),
		flakey.Type(),
		integrity.Type(),
		linear.Type(),
		logwrites.Type(),
		mirror.Type(),
		multipath.Type(),
		striped.Type(),
		switchtarget.Type(),
		unstriped.Type(),
		thin.PoolType(),
		thin.Type(),
		thinrescue.Type(),
		verity.Type(),
		writecache.Type(),
		zero.Type(),
	}
	return append(types, snapshot.Types()...)
}

// Type is the type of a table keyword, nil for none.
func Type(name string) *dm.Type {
	types := Types()
	i := slices.IndexFunc(types, func(ty *dm.Type) bool { return ty.Name == name })
	if i < 0 {
		return nil
	}
	return types[i]
}
