// Package place opens the store of an archive by its name: the path of a folder, or a bucket.
package place

import (
	"context"
	"os"
	"strings"

	"udm/archive"
	"udm/archive/s3"
)

// Syntax is how stores are named, for help texts.
const Syntax = "a folder, or s3://HOST/BUCKET[/PREFIX]"

// Open opens a store, which repeats what fails.
func Open(ctx context.Context, name string) (archive.Store, error) {
	if strings.Contains(name, "://") {
		s, err := s3.Open(ctx, name)
		if err != nil {
			return nil, err
		}
		return archive.Retry(s, nil), nil
	}
	s, err := archive.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return archive.Retry(s, nil), nil
}

// OpenArchive opens the archive in a store. keyFile is "" for one that is not encrypted.
func OpenArchive(ctx context.Context, name, keyFile string) (*archive.Archive, error) {
	s, err := Open(ctx, name)
	if err != nil {
		return nil, err
	}
	key, err := Key(keyFile)
	if err != nil {
		return nil, err
	}
	return archive.Open(ctx, s, key)
}

// Key reads a key file; "": there is no key.
func Key(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return archive.ParseKey(text)
}
