//go:build chromium

package web

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"udm/ctl"
	"udm/ctl/server"
	"udm/volume"
)

var shots = flag.String("shots", "", "directory for pictures of the page, for people to look at")

// shown holds once the page shows a state.
const shown = `document.querySelector("#page:not([hidden])") && udm.state && udm.graph.view`

func TestShots(t *testing.T) {
	if *shots == "" {
		return
	}
	must(t, os.MkdirAll(*shots, 0o755))
	r := newRig(t, server.Config{WebOperations: true})
	r.town()
	must(t, r.Limit(ctx, ctl.Limit{Device: "web-01", Read: ctl.Rate{IOPS: 500}, Write: ctl.Rate{Bytes: 20 << 20}}))
	p := startBrowser(t).open(1440, 1180, false)
	p.visit(r.at(), shown)
	p.eval(`udm.graph.select(null)`)
	busy(r, p, 14)
	pick(p, "debian-12.img")
	p.shot(filepath.Join(*shots, "light.png"))
	p.media(map[string]string{"prefers-color-scheme": "dark"})
	pick(p, "fast")
	p.shot(filepath.Join(*shots, "dark.png"))
	p.media(nil)
	pick(p, "web-01")
	p.size(390, 844, true)
	p.eval(`new Promise(done => setTimeout(done, 500))`)
	p.shot(filepath.Join(*shots, "phone.png"))
	p.eval(`scrollTo(0, 900)`)
	p.shot(filepath.Join(*shots, "phone2.png"))
	p.size(1440, 1180, false)
	p.eval(`scrollTo(0, 0)`)
	must(t, r.CreatePool(ctx, volume.PoolSpec{Name: "tiny", Size: 4 << 20, FailWhenFull: true}))
	must(t, r.CreateVolume(ctx, ctl.CreateVolume{Pool: "tiny", Name: "cache", Size: 16 << 20}))
	_ = r.write("cache", 0, 8<<20)
	p.until(`udm.state.problems.length > 1`)
	p.shot(filepath.Join(*shots, "problems.png"))
	fmt.Println(p.complaints())
}

// pick selects a block by its name.
func pick(p *page, name string) {
	p.Helper()
	p.eval(`udm.graph.select(udm.graph.blocks.find(b => b.name === ` + quote(name) + `), true)`)
	p.eval(`new Promise(done => setTimeout(done, 400))`)
}

// busy does I/O for some seconds.
func busy(r *rig, p *page, seconds int) {
	r.Helper()
	for end, i := time.Now().Add(time.Duration(seconds)*time.Second), uint64(0); time.Now().Before(end); i++ {
		must(r, r.write("db", 8*(i%4096), 4096+int(i%7)*8192))
		r.read("web-01", 8*(i%2048), 16384)
		r.read("wiki", 64*(i%1024), 65536)
		if i%3 == 0 {
			must(r, r.write("logs", 2048*(i%60), 256<<10))
		}
		time.Sleep(time.Duration(i%9) * time.Millisecond)
	}
	_ = p
}
