//go:build !unix

package hostfs

// syncDir does nothing: directories cannot be flushed here.
func syncDir(string) error { return nil }
