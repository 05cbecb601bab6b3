package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
	"udm/targets/crypt"
	"udm/targets/integrity"
)

// tagged is a scenario with authenticated encryption: crypt over an integrity device in mode J
// that keeps its tags. A sector without its own tag would fail to read.
type tagged struct {
	integrities
	cipher string // and the key
	filled bool   // all sectors have been written; before, they have no tags
}

func newTagged(r *rand.Rand) scenario {
	const key = "0123456789abcdef0123456789abcdef"
	c := []struct {
		cipher  string
		keys    int
		tag     int
		profile string
	}{
		{"capi:gcm(aes)-random", 2, 28, "aead"}, {"capi:gcm(aes)-plain64", 1, 16, "aead"}, {"capi:rfc7539(chacha20,poly1305)-random", 2, 28, "aead"},
		{"capi:authenc(hmac(sha256),xts(aes))-plain64", 4, 32, "aead"}, {"aes-xts-random", 2, 16, "none"},
	}[r.IntN(5)]
	g := &tagged{integrities: integrities{size: 40 + r.Uint64N(200), tag: c.tag}}
	g.cipher = fmt.Sprintf("%s %s 0 /dev/mapper/integrity 0 1 integrity:%d:%s", c.cipher, strings.Repeat(key, c.keys), c.tag, c.profile)
	g.fixed = fmt.Sprintf("fix_padding fix_hmac journal_sectors:%d interleave_sectors:%d buffer_sectors:%d", 1+r.IntN(400), 8<<r.IntN(5), 1<<r.IntN(5))
	if r.IntN(3) == 0 {
		g.fixed += " meta_device:meta"
	}
	if r.IntN(2) == 0 {
		g.fixed += " journal_mac:hmac(sha256):" + key + " journal_crypt:ctr(aes):" + key
	}
	g.choose(r)
	return g
}

func (g *tagged) choose(r *rand.Rand) {
	g.mode = "J"
	g.settings = fmt.Sprintf("journal_watermark:%d commit_time:%d", r.IntN(101), r.IntN(3000))
}

// start writes zeroes to a new disk.
func (g *tagged) start(w *harness) {
	w.device("integrity", g.table(g.mode))
	d := w.device("crypt", fmt.Sprintf("0 %d crypt %s", g.size, g.cipher))
	if d != nil && !g.filled {
		err := w.trying(func() error {
			return blk.WriteSectors(w.sim, d, make([]byte, g.size*blk.SectorSize), 0, blk.FUA)
		})
		g.filled = w.must(err, "write zeroes")
	}
	if g.filled {
		w.open(d, g.model)
	}
}

func (g *tagged) control(w *harness, r *rand.Rand) {
	d, err := w.c.Name("integrity")
	if !w.must(err, "find integrity") {
		return
	}
	switch r.IntN(3) {
	case 0:
		w.sleep(ms(r, 4000))
	case 1:
		g.choose(r)
		w.note("%s", g.settings)
		w.calm = true // a journal that cannot be written is lost with its table
		w.loadSurely(d, g.table(g.mode), "data")
		w.calm = false
	default:
		w.pauseSurely(d, r.IntN(2) == 0, r, "data")
	}
}

// verify reads all sectors without the journal: each is authentic.
func (g *tagged) verify(w *harness) {
	if w.faulty || w.host != nil {
		return
	}
	c := dm.NewControl(w.sim, w, crypt.Type(nil), integrity.Type())
	make := func(name, table string) (d *dm.Device) {
		specs, err := dm.ParseTable(table)
		if w.right(err, "table") {
			d, err = c.Create(name, "", -1)
		}
		if d != nil && w.right(err, "create %s", name) && w.right(d.Load(specs, dm.Mode{}), "load") {
			w.right(d.Resume(context.Background(), false), "resume")
		}
		return d
	}
	make("integrity", g.table("R"))
	if d := make("crypt", fmt.Sprintf("0 %d crypt %s", g.size, g.cipher)); d != nil {
		p := blktest.Pattern(0, g.size, 0)
		w.right(blk.ReadSectors(w.sim, d, p, 0), "read all sectors")
	}
	w.right(c.Close(), "close")
}
