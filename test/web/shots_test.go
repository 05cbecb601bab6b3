//go:build chromium

package web

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"udm/ctl"
	"udm/ctl/server"
	"udm/volume"
)

var shots = flag.String("shots", "", "directory for pictures of the page, for people to look at")

// TestShots takes the pictures of the documentation, with -shots.
func TestShots(t *testing.T) {
	if *shots == "" {
		return
	}
	must(t, os.MkdirAll(*shots, 0o755))
	r := newRig(t, server.Config{WebOperations: true})
	r.town()
	must(t, r.Limit(ctx, ctl.Limit{Device: "web-01", Read: ctl.Rate{IOPS: 500}, Write: ctl.Rate{Bytes: 20 << 20}}))
	must(t, r.Limit(ctx, ctl.Limit{Group: "tenant", Write: ctl.Rate{IOPS: 2000}}))
	p := open(t, 1440, 1180, false)
	shot := func(name string) { p.shot(filepath.Join(*shots, name+".png")) }
	p.visit(r.at(), shown)
	r.busy(90 * time.Second)
	p.next()
	shot("light")
	p.media(map[string]string{"prefers-color-scheme": "dark"})
	pick(p, "debian-12.img")
	p.until(`document.querySelector("#details .title").textContent.includes("debian")`)
	shot("dark")
	p.size(1440, 2000, false)
	p.next()
	pick(p, "web-01")
	p.until(`document.querySelector(".lines")`)
	shot("tall")
	p.media(nil)
	p.size(390, 844, true)
	p.next()
	shot("phone")
	p.eval(`scrollTo(0, 900)`)
	shot("phone-below")
	p.eval(`scrollTo(0, 0)`)
	p.size(1440, 1180, false)
	must(t, r.CreatePool(ctx, volume.PoolSpec{Name: "tiny", Size: 4 << 20, FailWhenFull: true}))
	must(t, r.CreateVolume(ctx, ctl.CreateVolume{Pool: "tiny", Name: "cache", Size: 16 << 20}))
	_ = r.write("cache", 0, 8<<20) // fails, as it should
	p.until(`udm.state.problems.length > 2`)
	pick(p, "tiny")
	shot("problems")
}

// busy does I/O for some time.
func (r *rig) busy(long time.Duration) {
	r.Helper()
	for end, i := time.Now().Add(long), uint64(0); time.Now().Before(end); i++ {
		must(r, r.write("db", 8*(i%4096), 4096+int(i%7)*8192))
		r.read("web-01", 8*(i%2048), 16384)
		r.read("wiki", 64*(i%1024), 65536)
		if i%3 == 0 {
			must(r, r.write("logs", 2048*(i%60), 256<<10))
		}
		time.Sleep(time.Duration(i%9) * time.Millisecond) // so that the pictures show I/O that rises and falls; nothing waits for it
	}
}
