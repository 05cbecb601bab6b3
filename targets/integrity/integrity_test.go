package integrity_test

import (
	"encoding/hex"
	"fmt"
	"hash"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
	"udm/targets/integrity"
	"udm/targets/internal/targettest"
	"udm/targets/linear"
)

var types = []*dm.Type{integrity.Type(), linear.Type()}

const key = "000102030405060708090a0b0c0d0e0f"

func table(mode, words string) string {
	return fmt.Sprintf("0 4096 integrity a 0 - %s %d %s", mode, len(strings.Fields(words)), words)
}

// TestConforms runs the conformance suite on layouts of modes J and B, over disks with volatile
// caches that lose power, while tags are recalculated.
func TestConforms(t *testing.T) {
	for name, words := range map[string]string{
		"default": "internal_hash:crc32c recalculate",
		"small":   "internal_hash:sha256 journal_sectors:1 interleave_sectors:8 fix_padding recalculate",
		"4096":    "internal_hash:crc32c block_size:4096 buffer_sectors:1 allow_discards recalculate",
		"hmac":    "internal_hash:hmac(sha256):" + key + " fix_hmac commit_time:1 recalculate " + sealedBy("ctr(aes)"),
		"meta":    "internal_hash:xxhash64 meta_device:b recalculate",
	} {
		t.Run(name, func(t *testing.T) { targettest.Conforms(t, blktest.Suite{}, types, table("J", words)) })
	}
	for name, words := range map[string]string{
		"bitmap":      "internal_hash:crc32c recalculate",
		"bitmap-4096": "internal_hash:crc32c block_size:4096 buffer_sectors:1 allow_discards recalculate sectors_per_bit:8 bitmap_flush_interval:1",
	} {
		t.Run(name, func(t *testing.T) { targettest.Conforms(t, blktest.Suite{}, types, table("B", words)) })
	}
}

// TestHashes compares with published checksums of "123456789", in the kernel's byte order.
func TestHashes(t *testing.T) {
	for name, want := range map[string]string{
		"crc32c": "839206e3", "xxhash64": "83aee640db41b88c",
	} {
		h := newHash(t, name)
		fmt.Fprint(h, "123456789")
		if got := hex.EncodeToString(h.Sum(nil)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func newHash(t *testing.T, name string) hash.Hash {
	t.Helper()
	h, err := integrity.NewHash(name, nil)
	if err != nil {
		t.Fatal(err)
	}
	return h()
}

var _ = blk.OK
