//go:build ceph

package ceph

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"udm"
	"udm/archive/s3"
	"udm/archive/s3/s3test"
	"udm/blk/blktest"
	"udm/test/need"
)

const accessKey, secretKey, bucket = "key", "secret", "bucket"

// gateway starts radosgw, which ends with the test, and makes a bucket. It returns the
// server's address.
func gateway(t *testing.T) string {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", accessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", secretKey)
	if err := run("radosgw-admin", "user", "create", "--uid=udm", "--display-name=udm", "--access-key="+accessKey, "--secret-key="+secretKey); err != nil {
		t.Fatal(err)
	}
	port, _, err := ports()
	if err != nil {
		t.Fatal(err)
	}
	host := fmt.Sprint("127.0.0.1:", port)
	data := filepath.Join(ceph.dir, "rgw")
	if err := os.MkdirAll(data, 0o755); err != nil {
		t.Fatal(err)
	}
	rgw, err := start("radosgw", "-n", "client.admin", "--rgw-data="+data, "--rgw-frontends=beast endpoint="+host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = rgw.Process.Kill()
		_ = rgw.Wait()
	})
	until(t, "an answer of radosgw", func() bool {
		resp, err := http.Get("http://" + host)
		if err != nil {
			return false
		}
		return resp.Body.Close() == nil
	})
	c, err := minio.New(host, &minio.Options{Creds: credentials.NewStaticV4(accessKey, secretKey, "")})
	if err == nil {
		err = c.MakeBucket(t.Context(), bucket, minio.MakeBucketOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return "http://" + host
}

// TestS3 uses a bucket of radosgw: by archives, each request of which fails once, is late, or
// is carried out twice; and as a disk, by the plugin of nbdkit.
func TestS3(t *testing.T) {
	server := gateway(t)
	t.Run("archives", func(t *testing.T) { s3test.TestServer(t, server, bucket) })
	t.Run("nbdkit", func(t *testing.T) { objectAsDisk(t, server) })
}

func objectAsDisk(t *testing.T, server string) {
	need.Tools(t, "nbdkit")
	want := make([]byte, 3<<20)
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range want {
		want[i] = byte(rng.Uint32())
	}
	s, err := s3.Open(t.Context(), "s3+"+server+"/"+bucket)
	if err == nil {
		err = s.Put(t.Context(), "image", want)
	}
	if err != nil {
		t.Fatal(err)
	}
	blktest.Leaks(t)
	socket := filepath.Join(t.TempDir(), "s")
	kit := exec.Command("nbdkit", "-f", "-U", socket, "S3", "endpoint-url="+server, "access-key="+accessKey, "secret-key="+secretKey, "bucket="+bucket, "key=image")
	kit.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := kit.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = kit.Process.Kill()
		_ = kit.Wait()
	})
	until(t, "a socket of nbdkit", func() bool {
		_, err := os.Stat(socket)
		return err == nil
	})
	stack := udm.New()
	defer stack.Close()
	d, err := stack.CreateReadOnly("object", fmt.Sprintf("0 %d linear nbd+unix:///?socket=%s 0", len(want)/512, socket))
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if _, err := d.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("another content, or %v", err)
	}
}
