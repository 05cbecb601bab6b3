package s3_test

import (
	"net/http/httptest"
	"testing"

	"udm/archive/s3/s3test"
)

// TestBucket tests with a server in this process; test/ceph does with a real one.
func TestBucket(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	s := httptest.NewServer(&s3test.Bucket{})
	t.Cleanup(s.Close)
	s3test.TestServer(t, s.URL, "bucket")
}
