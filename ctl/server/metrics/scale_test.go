//go:build unix

package metrics

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"udm/blk"
	"udm/ctl"
	"udm/ctl/server/service"
	"udm/env"
	"udm/env/hostfs"
	"udm/targets/all"
)

// unsynced is the file system without syncs, which make the creation of thousands of devices
// slow.
type unsynced struct{ hostfs.Disk }

func (unsynced) SyncDir(string) error { return nil }

func (u unsynced) Create(path string) (hostfs.File, error) {
	f, err := u.Disk.Create(path)
	return unsyncedFile{f}, err
}

type unsyncedFile struct{ hostfs.File }

func (unsyncedFile) Sync() error { return nil }

// newFleet returns a service that counts what devices do.
func newFleet(tb testing.TB) *service.Service {
	tb.Helper()
	s, err := service.New(service.Config{Root: tb.TempDir(), FS: unsynced{}, Types: all.Types()})
	if err == nil {
		err = s.Restore(context.Background())
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	if _, err := s.Stats(context.Background()); err != nil {
		tb.Fatal(err)
	}
	return s
}

// fleet returns a service with n linear devices that were read and written.
func fleet(tb testing.TB, n int) *service.Service {
	tb.Helper()
	s := newFleet(tb)
	for i := range n {
		use(tb, s, fmt.Sprintf("volume-%05d", i), "0 2048 linear mem:1M:"+fmt.Sprint(i)+" 0")
	}
	return s
}

// thinFleet returns a service with n volumes of one pool that were read and written.
func thinFleet(tb testing.TB, n int) *service.Service {
	tb.Helper()
	s, ctx := newFleet(tb), context.Background()
	if _, err := s.Create(ctx, ctl.Create{Name: "pool", Table: "0 2097152 thin-pool mem:64M:m mem:1G:d 128 0"}); err != nil {
		tb.Fatal(err)
	}
	for i := range n {
		if _, err := s.Message(ctx, ctl.Message{Ref: ctl.Ref{Name: "pool"}, Text: fmt.Sprint("create_thin ", i)}); err != nil {
			tb.Fatal(err)
		}
		use(tb, s, fmt.Sprintf("volume-%05d", i), fmt.Sprintf("0 2048 thin /dev/mapper/pool %d", i))
	}
	return s
}

// use creates a device, writes to it and reads it.
func use(tb testing.TB, s *service.Service, name, table string) {
	tb.Helper()
	if _, err := s.Create(context.Background(), ctl.Create{Name: name, Table: table}); err != nil {
		tb.Fatal(err)
	}
	d, err := s.Open(ctl.Ref{Name: name}, true)
	if err != nil {
		tb.Fatal(err)
	}
	sector := make([]byte, blk.SectorSize)
	if err := blk.WriteSectors(env.Real(), d, sector, 0, 0); err != nil {
		tb.Fatal(err)
	}
	if err := blk.ReadSectors(env.Real(), d, sector, 0); err != nil {
		tb.Fatal(err)
	}
	if err := d.Close(); err != nil {
		tb.Fatal(err)
	}
}

// counted is a http.ResponseWriter that counts the bytes of the response.
type counted struct {
	header http.Header
	bytes  int64
}

func (c *counted) Header() http.Header { return c.header }
func (c *counted) WriteHeader(int)     {}

func (c *counted) Write(p []byte) (int, error) {
	c.bytes += int64(len(p))
	return len(p), nil
}

// TestSizeOfAFleet checks that 5,000 devices that are read and written take less than 20 MB.
func TestSizeOfAFleet(t *testing.T) {
	h := handler(fleet(t, 100))
	lines := func() (n, bytes int) {
		for line := range strings.Lines(get(h, "/metrics", openMetrics).Body.String()) {
			if strings.Contains(line, `device="volume-`) {
				n, bytes = n+1, bytes+len(line)
			}
		}
		return n, bytes
	}
	n, bytes := lines()
	if n != 100*35 || bytes*50 > 20e6 {
		t.Errorf("%d lines and %d bytes of 100 devices", n, bytes)
	}
	if again, _ := lines(); again != n {
		t.Errorf("%d lines in the second scrape", again)
	}
}

// BenchmarkScrape5000 scrapes 5,000 devices. cpu-ms/op is meaningful on a busy machine, too.
func BenchmarkScrape5000(b *testing.B) {
	b.Run("linear", func(b *testing.B) { scrape(b, fleet(b, 5000)) })
	b.Run("thin", func(b *testing.B) { scrape(b, thinFleet(b, 5000)) })
}

func scrape(b *testing.B, s *service.Service) {
	h := handler(s)
	r := httptest.NewRequest(http.MethodGet, "http://udm/metrics", nil)
	r.Header.Set("Accept", openMetrics)
	b.ReportAllocs()
	var w *counted
	began, looks := cpuTime(b), 0
	for b.Loop() {
		w = &counted{header: make(http.Header)}
		h.ServeHTTP(w, r)
		looks++
	}
	b.ReportMetric((cpuTime(b)-began).Seconds()*1e3/float64(looks), "cpu-ms/op")
	b.ReportMetric(float64(w.bytes)/1e6, "MB")
}

// cpuTime returns the processor time used by the process.
func cpuTime(tb testing.TB) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
