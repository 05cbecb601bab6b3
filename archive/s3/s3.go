// Package s3 is a store of archives in a bucket of an object store that speaks S3, and
// knows conditional puts (If-None-Match): AWS, Ceph's radosgw and others do.
package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// Store is a bucket, or what is below a prefix of it. It repeats nothing that fails.
type Store struct {
	core   minio.Core
	bucket string
	prefix string // with a slash at its end, or empty
}

// Open opens the store s3://HOST[:PORT]/BUCKET[/PREFIX]; s3+http:// is for servers without
// TLS. Keys are those of $AWS_ACCESS_KEY_ID and $AWS_SECRET_ACCESS_KEY, or of the file
// ~/.aws/credentials; the region is $AWS_REGION, or what the server says.
func Open(ctx context.Context, name string) (*Store, error) {
	u, err := url.Parse(name)
	if err != nil {
		return nil, err
	}
	bucket, prefix, _ := strings.Cut(strings.Trim(u.Path, "/"), "/")
	if u.Scheme != "s3" && u.Scheme != "s3+http" || u.Host == "" || bucket == "" || u.User != nil || u.RawQuery != "" {
		return nil, fmt.Errorf("%s is not a store; it is s3://HOST/BUCKET or s3://HOST/BUCKET/PREFIX", u.Redacted())
	}
	c, err := minio.New(u.Host, &minio.Options{
		Creds:  credentials.NewChainCredentials([]credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}}),
		Secure: u.Scheme == "s3", Region: os.Getenv("AWS_REGION"), MaxRetries: 1,
	})
	if err != nil {
		return nil, err
	}
	s := &Store{minio.Core{Client: c}, bucket, prefix}
	if prefix != "" {
		s.prefix += "/"
	}
	return s, nil
}

// understand returns the error of package fs that an answer means.
func understand(key string, err error) error {
	if err == nil {
		return nil
	}
	r := minio.ToErrorResponse(err)
	var is error
	switch {
	case r.StatusCode == http.StatusPreconditionFailed:
		is = fs.ErrExist
	case r.Code == minio.NoSuchKey, r.Code == minio.NoSuchBucket:
		is = fs.ErrNotExist
	case r.StatusCode == http.StatusForbidden, r.StatusCode == http.StatusUnauthorized:
		is = fs.ErrPermission
	case r.StatusCode == http.StatusNotImplemented:
		return fmt.Errorf("%s: the server does not know conditional puts: %w", key, errors.Join(fs.ErrPermission, err))
	default:
		return fmt.Errorf("%s: %w", key, err)
	}
	return fmt.Errorf("%s: %w (%v)", key, is, err)
}

// PutNew implements archive.Store.
func (s *Store) PutNew(ctx context.Context, key string, data []byte) error {
	var o minio.PutObjectOptions
	o.SetMatchETagExcept("*")
	return s.put(ctx, key, data, o)
}

// Put implements archive.Store.
func (s *Store) Put(ctx context.Context, key string, data []byte) error {
	return s.put(ctx, key, data, minio.PutObjectOptions{})
}

func (s *Store) put(ctx context.Context, key string, data []byte, o minio.PutObjectOptions) error {
	o.ContentType, o.DisableContentSha256 = "application/octet-stream", true // not in parts: as a whole, below
	sum := sha256.Sum256(data)                                               // the server refuses what was changed on its way
	_, err := s.core.PutObject(ctx, s.bucket, s.prefix+key, bytes.NewReader(data), int64(len(data)), "", hex.EncodeToString(sum[:]), o)
	return understand(key, err)
}

// Get implements archive.Store.
func (s *Store) Get(ctx context.Context, key string, offset, n int64) ([]byte, error) {
	var o minio.GetObjectOptions
	var err error
	switch {
	case n >= 0:
		err = o.SetRange(offset, offset+n-1)
	case offset > 0:
		err = o.SetRange(offset, 0)
	}
	if err != nil {
		return nil, err
	}
	r, _, _, err := s.core.GetObject(ctx, s.bucket, s.prefix+key, o)
	if err != nil {
		return nil, understand(key, err)
	}
	defer r.Close()
	if n < 0 {
		p, err := io.ReadAll(r)
		return p, understand(key, err)
	}
	p := make([]byte, n)
	_, err = io.ReadFull(r, p)
	return p, understand(key, err)
}

// List implements archive.Store.
func (s *Store) List(ctx context.Context, prefix string, fn func(key string, size int64) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	for o := range s.core.Client.ListObjects(ctx, s.bucket, minio.ListObjectsOptions{Prefix: s.prefix + prefix, Recursive: true}) {
		err := understand(prefix, o.Err)
		if err == nil {
			err = fn(strings.TrimPrefix(o.Key, s.prefix), o.Size)
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Delete implements archive.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	err := understand(key, s.core.Client.RemoveObject(ctx, s.bucket, s.prefix+key, minio.RemoveObjectOptions{}))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
