//go:build !unix

package server

// syncDir does nothing: directories cannot be flushed here.
func syncDir(string) error { return nil }
