package crypt_test

import (
	"bytes"
	"flag"
	"fmt"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
	"udm/targets/crypt"
	"udm/targets/integrity"
	"udm/targets/internal/targettest"
	"udm/targets/linear"
)

var stacked = []*dm.Type{crypt.Type(nil), integrity.Type(), linear.Type()}

// tagger is an integrity device of 2048 sectors on a, for tags of another device.
func tagger(tag int, mode string, block int) string {
	return fmt.Sprintf("0 2048 integrity a 0 %d %s 3 block_size:%d journal_sectors:300 interleave_sectors:256", tag, mode, block)
}

type tagged struct {
	name, cipher, key string
	tag               int
	profile           string
}

var taggeds = []tagged{
	{"gcm", "capi:gcm(aes)-random", key32, 28, "aead"},
	{"gcm-plain", "capi:gcm(aes)-plain64", key32, 16, "aead"},
	{"chacha", "capi:rfc7539(chacha20,poly1305)-random", key32, 28, "aead"},
	{"hmac", "capi:authenc(hmac(sha256),xts(aes))-plain64", key64 + key32, 32, "aead"},
	{"hmac-random", "capi:authenc(hmac(sha512),cbc(aes))-random", key32 + key64, 80, "aead"},
	{"short", "capi:authenc(hmac(sha1),xts(aes))-random", key32 + key32[:40], 26, "aead"},
	{"vectors", "aes-xts-random", key64, 16, "none"},
}

func (c *tagged) table(device string, block int) string {
	return table(2048, c.cipher, c.key, fmt.Sprintf("0 %s 0 2 integrity:%d:%s sector_size:%d", device, c.tag, c.profile, block))
}

func TestConformsWithTags(t *testing.T) {
	for i, c := range taggeds {
		t.Run(c.name, func(t *testing.T) {
			block := 512 << (i % 4)
			targettest.ConformsWritten(t, blktest.Suite{}, stacked, tagger(c.tag, "J", block), c.table("/dev/dm-0", block))
		})
	}
}

var allBits = flag.Bool("allbits", false, "flip each bit, not a sample")

// TestForged: a changed bit of data or tag, and a sector with its tag at the place of another,
// fail to read when sectors are authenticated, and a client sees nothing of them.
func TestForged(t *testing.T) {
	for _, c := range taggeds {
		if c.profile == "aead" {
			t.Run(c.name, func(t *testing.T) { testForged(t, &c) })
		}
	}
}

func testForged(t *testing.T, c *tagged) {
	r := targettest.New(t, stacked)
	meta := strings.Replace(tagger(c.tag, "D", 512), " 3 ", " 4 meta_device:b ", 1)
	i := r.Device("i", meta)
	d := r.Device("x", c.table("/dev/dm-0", 512))
	r.Write(d, 0, 64, 1)
	r.Must(d.Close())
	text := dm.FormatTable(i.Lines(dm.TableText, false, 0))
	journal := 0
	_, err := fmt.Sscanf(text[strings.Index(text, "journal_sectors:"):], "journal_sectors:%d", &journal)
	r.Must(err)
	tags := (8 + journal) * 512
	edit := func(name string, at, n int, change func(p []byte)) {
		r.Must(i.Close())
		p := make([]byte, (at%512+n+511)/512*512)
		r.Must(blk.ReadSectors(r.Sim, r.Disk(name), p, uint64(at/512)))
		change(p[at%512:][:n])
		r.Must(blk.WriteSectors(r.Sim, r.Disk(name), p, uint64(at/512), 0))
		i = r.Device("i", meta)
		d = r.Device("x", c.table("/dev/dm-0", 512))
	}
	fails := func(sector uint64) {
		t.Helper()
		x := r.Do(d, blk.Read, sector, 1, 0, blk.IOErr)
		if !bytes.Equal(x.Data, blktest.Pattern(sector, 1, 0)) {
			t.Errorf("sector %d: the client got data that are not authentic", sector)
		}
		r.Want(d, sector+1, 1, sector+1, 1)
		r.Must(d.Close())
	}
	step := func(sample int) int {
		if *allBits {
			return 1
		}
		return sample
	}
	bits := 0
	for bit := range 8 * 512 {
		if bit%step(509) == 0 {
			bits++
			edit("a", 10*512, 512, func(p []byte) { p[bit/8] ^= 1 << (bit % 8) })
			fails(10)
			edit("a", 10*512, 512, func(p []byte) { p[bit/8] ^= 1 << (bit % 8) })
			r.Must(d.Close())
		}
	}
	for bit := range 8 * c.tag {
		if bit%step(37) == 0 {
			bits++
			edit("b", tags+20*c.tag, c.tag, func(p []byte) { p[bit/8] ^= 1 << (bit % 8) })
			fails(20)
			edit("b", tags+20*c.tag, c.tag, func(p []byte) { p[bit/8] ^= 1 << (bit % 8) })
			r.Must(d.Close())
		}
	}
	t.Logf("%d bits", bits)
	edit("a", 30*512, 1024, func(p []byte) { copy(p[512:], p[:512]) })
	r.Must(d.Close())
	edit("b", tags+30*c.tag, 2*c.tag, func(p []byte) { copy(p[c.tag:], p[:c.tag]) })
	r.Want(d, 30, 1, 30, 1)
	fails(31)
}
