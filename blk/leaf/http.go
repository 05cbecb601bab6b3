package leaf

import (
	"os"
	"syscall"

	"udm/blk"
	"udm/blk/httpdev"
	"udm/dm"
)

// parseHTTP parses a URL.
func parseHTTP(name, rest string) (source, error) {
	plain := os.Getenv("UDM_PLAIN_HTTP") == "1"
	if err := httpdev.Parse(name, plain); err != nil {
		return source{}, dm.Errorf(syscall.EINVAL, "%v", err)
	}
	return source{id: identity{name: rest}, open: func(o *Opener, write bool) (blk.Device, error) {
		if write {
			return nil, dm.Errorf(syscall.EACCES, "what is at a web server is read-only; use it as an origin: udm clone")
		}
		cache, err := chunks()
		if err != nil {
			return nil, err
		}
		return httpdev.Open(o.env, name, httpdev.Options{Cache: cache, Plain: plain})
	}}, nil
}
