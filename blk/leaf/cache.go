package leaf

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"udm/blk"
	"udm/blk/chunkcache"
)

// chunks is the cache of all remote disks of this process: in the folder $UDM_CACHE, or udm in
// that of the user's caches, of the size $UDM_CACHE_SIZE.
var chunks = sync.OnceValues(func() (*chunkcache.Cache, error) {
	dir := os.Getenv("UDM_CACHE")
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			base = os.TempDir()
		}
		dir = filepath.Join(base, "udm")
	}
	limit := int64(0)
	if word := os.Getenv("UDM_CACHE_SIZE"); word != "" {
		sectors, err := ParseSize(word)
		if err != nil {
			return nil, fmt.Errorf("UDM_CACHE_SIZE: %w", err)
		}
		limit = int64(sectors * blk.SectorSize)
	}
	return chunkcache.Open(dir, limit)
})
