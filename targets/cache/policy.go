package cache

import (
	"math"
	"strings"
	"syscall"

	"udm/dm"
	"udm/targets/cache/cachemeta"
	"udm/targets/cache/internal/smq"
)

// mqKeys are what the policy mq was once tuned with. They are accepted and mean
// nothing, as in the kernel.
var mqKeys = []string{"random_threshold", "sequential_threshold", "discard_promote_adjustment", "read_promote_adjustment", "write_promote_adjustment"}

// policyName returns the name by which a policy is shown and its hints are found.
func policyName(word string) (name string, ok bool) {
	switch word {
	case "smq", "mq", "cleaner":
		return word, true
	case "default":
		return "smq", true
	}
	return "", false
}

// identity is the policy as the metadata names it.
func (c *cache) identity() cachemeta.Policy {
	return cachemeta.Policy{Name: c.policyName, Version: smq.Version, HintSize: smq.HintSize}
}

// policyArgs are the settings that the status shows.
func (c *cache) policyArgs() (args []string) {
	if c.policyName == "mq" {
		for _, k := range mqKeys {
			args = append(args, k, "0")
		}
	}
	return args
}

// configure changes a setting of the cache or of its policy.
func (c *cache) configure(key, value string) error {
	n, err := dm.ParseUint64(value)
	switch {
	case strings.EqualFold(key, "migration_threshold"):
		if err == nil {
			c.threshold.Store(int64(min(n, math.MaxInt64)))
		}
		return err
	case c.policyName == "mq" && err == nil && isMQKey(key):
		return nil
	}
	return dm.Errorf(syscall.EINVAL, "%s %s is no setting of the policy %s; migration_threshold SECTORS is one of every cache", key, value, c.policyName)
}

func isMQKey(key string) bool {
	for _, k := range mqKeys {
		if strings.EqualFold(k, key) {
			return true
		}
	}
	return false
}

// newPolicy makes the policy of an empty cache.
func (c *cache) newPolicy() *smq.Policy {
	return smq.New(smq.Options{Blocks: c.blocks, OriginSectors: c.originSectors, BlockSectors: c.blockSectors,
		NoMigrations: c.mode == Passthrough, Cleaner: c.policyName == "cleaner", Now: c.env.Now()})
}
