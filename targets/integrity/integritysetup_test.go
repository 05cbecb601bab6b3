//go:build unix

package integrity_test

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
	"udm/env"
	"udm/targets/integrity"
	"udm/test/kernel"
	"udm/test/need"
)

var howMany = flag.Int("disks", 6, "how many random disks to make with integritysetup, and as many here")

// kind holds the parameters of a random disk.
type kind struct {
	hash, key                                string
	tagSize, sectorSize, interleave, journal int
	direct, mac                              bool
	crypt                                    string // cbc or ctr; "": none
}

func choose(rng *rand.Rand) *kind {
	pick := func(list ...int) int { return list[rng.IntN(len(list))] }
	k := &kind{hash: []string{"crc32c", "sha256", "sha1", "hmac-sha256", "xxhash64"}[rng.IntN(5)], sectorSize: pick(512, 1024, 4096), interleave: pick(128, 1024, 32768), journal: pick(100000, 300000), direct: rng.IntN(3) == 0}
	if strings.HasPrefix(k.hash, "hmac") {
		k.key = "0123456789abcdef0123456789abcdef"
	}
	if rng.IntN(3) == 0 {
		k.tagSize = pick(1, 4)
	}
	k.mac, k.crypt = rng.IntN(3) == 0, []string{"", "", "cbc", "ctr"}[rng.IntN(4)]
	return k
}

// options returns the options of integritysetup open, or those of format.
func (k *kind) options(format bool) string {
	o := " --integrity " + k.hash
	if k.key != "" {
		o += " --integrity-key-file $OUT/key --integrity-key-size 32"
	}
	if k.mac {
		o += " --journal-integrity hmac-sha256 --journal-integrity-key-file $OUT/key --journal-integrity-key-size 32"
	}
	if k.crypt != "" {
		o += " --journal-crypt " + k.crypt + "-aes --journal-crypt-key-file $OUT/key --journal-crypt-key-size 32"
	}
	if !format {
		if k.direct {
			o += " --integrity-no-journal"
		}
		return o + " --buffer-sectors 128"
	}
	if k.tagSize > 0 {
		o += fmt.Sprint(" --tag-size ", k.tagSize)
	}
	return o + fmt.Sprintf(" --sector-size %d --interleave-sectors %d --journal-size %d", k.sectorSize, k.interleave, k.journal)
}

// table returns a table for the disk. For a new disk it has the features that take effect
// when formatting.
func (k *kind) table(sectors, tagSize int, format bool) string {
	hash := k.hash
	words := fmt.Sprintf("block_size:%d", k.sectorSize)
	if k.key != "" {
		hash = "hmac(sha256):" + hex.EncodeToString([]byte(k.key))
	}
	if format {
		words += fmt.Sprintf(" fix_padding interleave_sectors:%d journal_sectors:%d", k.interleave, k.journal/512)
		if k.key != "" || k.mac {
			words += " fix_hmac"
		}
	}
	own := ":" + hex.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))
	if k.mac {
		words += " journal_mac:hmac(sha256)" + own
	}
	if k.crypt != "" {
		words += " journal_crypt:" + k.crypt + "(aes)" + own
	}
	words += " internal_hash:" + hash
	tag := "-"
	if tagSize > 0 {
		tag = fmt.Sprint(tagSize)
	}
	mode := "J"
	if k.direct {
		mode = "D"
	}
	return fmt.Sprintf("0 %d integrity a 0 %s %s %d %s", sectors, tag, mode, len(strings.Fields(words)), words)
}

// TestKernelIntegritysetup checks that integritysetup opens disks formatted by udm, and udm
// those formatted by integritysetup.
func TestKernelIntegritysetup(t *testing.T) {
	need.Tools(t, "integritysetup")
	dir := t.TempDir()
	write := func(name string, p []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), p, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("key", []byte("0123456789abcdef0123456789abcdef"))
	pattern := blktest.Pattern(0, 1024, 77)
	write("pattern", pattern)
	var script strings.Builder
	kinds := map[string]*kind{}
	for seed := range uint64(*howMany) {
		k := choose(rand.New(rand.NewPCG(seed, 3)))
		t.Logf("%d: %+v", seed, k)
		d := newDisks(8192)
		x := mustStart(t, d, k.table(1024, k.tagSize, true))
		if err := blk.WriteSectors(x.sim, x, pattern, 0, 0); err != nil {
			t.Fatal(err)
		}
		if err := x.control.Close(); err != nil {
			t.Fatal(err)
		}
		ours, theirs := fmt.Sprint("ours", seed), fmt.Sprint("theirs", seed)
		(&image{disks: d}).store(t, filepath.Join(dir, ours))
		write(theirs, make([]byte, 4<<20))
		kinds[theirs] = k
		fmt.Fprintf(&script, "l=$(losetup -f --show $OUT/%s); integritysetup open $l x %s\n", ours, k.options(false))
		fmt.Fprintf(&script, "dd if=/dev/mapper/x of=$OUT/read%d bs=64k count=8 iflag=direct status=none; integritysetup close x; losetup -d $l\n", seed)
		fmt.Fprintf(&script, "l=$(losetup -f --show $OUT/%s); integritysetup format -q $l --no-wipe %s >/dev/null; integritysetup open $l x %s\n", theirs, k.options(true), k.options(false))
		fmt.Fprintf(&script, "dd if=$OUT/pattern of=/dev/mapper/x bs=64k count=8 oflag=direct conv=fsync status=none; integritysetup close x; losetup -d $l\n")
	}
	kernel.Boot(t, kernel.Options{Dir: dir, Script: script.String()})
	for seed := range *howMany {
		if got, err := os.ReadFile(filepath.Join(dir, fmt.Sprint("read", seed))); err != nil || !bytes.Equal(got, pattern) {
			t.Errorf("integritysetup read wrong data from disk %d, %v", seed, err)
		}
	}
	for name, k := range kinds {
		i := &image{disks: newDisks(8)}
		i.load(t, filepath.Join(dir, name))
		s, err := integrity.ReadSuperblock(env.Real(), i.disks.mems["a"], 0)
		if err != nil {
			t.Fatal(err)
		}
		x, err := start(i.disks, k.table(1024, int(s.TagSize), false), dm.Mode{Write: true})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := make([]byte, len(pattern))
		if err := blk.ReadSectors(x.sim, x, got, 0); err != nil || !bytes.Equal(got, pattern) {
			t.Errorf("%s: read wrong data, %v", name, err)
		}
		if err := x.control.Close(); err != nil {
			t.Error(err)
		}
	}
}
