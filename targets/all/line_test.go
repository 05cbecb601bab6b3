package all_test

import (
	"reflect"
	"strings"
	"testing"

	"udm/dm"
	"udm/targets/all"
	"udm/targets/internal/targettest"
)

// FuzzLines understands a line "TYPE WORDS". What is understood means the same
// once it is printed, whatever its devices are called.
func FuzzLines(f *testing.F) {
	for _, seed := range []string{
		"linear a 8", "linear /a\\ b 18446744073709551616", "snapshot a b p 8 1 discard_zeroes_cow", "snapshot a b Nx 0",
		"snapshot a b po 16 2 discard_zeroes_cow discard_passdown_origin", "snapshot-merge a b P 8", "snapshot-origin a\\\\",
		"thin-pool a b 128 +0", "thin-pool a b 256 5 3 skip_block_zeroing read_only error_if_no_space", "thin-pool a b 128 0 2 ignore_discard no_discard_passdown",
		"thin a 0", "thin a +5 b", "zero", "error 5", "log-writes a b c", "dust a 8 512", "ebs a 8 1", "ebs a 65537 65544 32768", "era a b 24", "clone a b c 8", "clone a b c 64 2 No_hydration no_discard_passdown 4 hydration_batch_size +4 HYDRATION_threshold 0 x", "clone a b c 8 0", "era a b 4294967304", "unstriped 2 8 1 a 0", "switch 2 8 0 a 0 b +8",
		"striped 2 8 a 0 b 8", "striped 1 +8 a 18446744073709551617", "delay a 0 5", "delay a 0 4294967297 b 8 6 a 0 7", "flakey a 0 1 2",
		"crypt aes-xts-plain64 " + cryptKey + " 0 a 8", "crypt capi:cbc(aes)-essiv:sha256 " + cryptKey + " 8 a 0 3 iv_large_sectors sector_size:1024 high_priority",
		"crypt aes-xts-plain64 :64:logon:a\\ b 0 a 0", "crypt cipher_null-ecb - 0 a 0 0 spare",
		"verity 1 a b 4096 4096 9 1 sha256 " + verityRoot + " - 10 ignore_corruption check_at_most_once use_fec_from_device f fec_blocks 10 fec_start 0 fec_roots 2",
		"verity 0 a a 512 1024 9 1 sha256 " + verityRoot + " AB 2 try_verify_in_tasklet ignore_zero_blocks",
		"cache a b c 64 0 smq 0", "cache a b c 128 3 Metadata2 WRITETHROUGH no_discard_passdown mq 4 migration_threshold 0 random_threshold +7 and more",
		"writecache s a b 4096 0", "writecache S a b 512 18 PAUSE_writeback 5 cleaner start_sector 18446744073709551615 high_watermark 60 low_watermark 60 writeback_jobs 4294967299 autocommit_blocks 7 autocommit_time 20 max_age 0 metadata_only", "writecache s a b 1024 3 cleaner cleaner metadata_only extra",
		"integrity a 0 - J 1 internal_hash:crc32c", "integrity a 8 9 D 12 internal_hash:hmac(sha256):00AB meta_device:b block_size:4096 recalculate reset_recalculate allow_discards fix_padding fix_hmac legacy_recalculate journal_sectors:0 interleave_sectors:9 buffer_sectors:9",
		"integrity a 8 4 J 3 internal_hash:xxhash64 journal_watermark:7 commit_time:0", "integrity a 8 4 B 3 internal_hash:xxhash64 sectors_per_bit:0 bitmap_flush_interval:0",
		"flakey a 0 1 2 6 error_writes corrupt_bio_byte 32 R 1 0", "flakey a 0 1 2 1 Drop_Writes", "flakey a 0 1 2 5 corrupt_bio_byte 32 w 255 131072",
		"thin-rescue a b 5 4 block_size 128 outdated certain", "thin-rescue a b @77",
		"mirror core 1 8 2 a 0 b 0 0", "mirror disk 3 l\\ 1 1024 nosync 3 a 0 b 8 c 0 2 keep_log handle_errors", "mirror core 2 64 sync 2 a 1 b 2 2 handle_errors handle_errors",
		"multipath 9 queue_if_no_path Pg_init_retries 50 pg_init_delay_msecs 0 Queue_mode bio polling_interval 3600 1 alua 2 7 round-robin 1 x 2 1 a 5 b\\ c 4294967296 historical-service-time 1 0 1 1 c 7", "multipath 2 queue_mode MQ 0 2 2 service-time 0 2 2 a 0 0 b 1 100 queue-length 0 1 0 c", "multipath 0 0 0 0",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		name, words, _ := strings.Cut(text, " ")
		ty := all.Type(name)
		if ty == nil {
			return
		}
		l, err := ty.Parse(dm.SplitWords(words))
		if err != nil {
			return
		}
		if l.Target() != name {
			t.Errorf("a line of %s says that it is one of %s", name, l.Target())
		}
		means(t, ty, l)
		for i, d := range l.Devices() {
			*d.Name = "a \\\t device" + strings.Repeat("'", i)
		}
		means(t, ty, l)
	})
}

// means sees that a line is the same when it is parsed again.
func means(t testing.TB, ty *dm.Type, l dm.Line) {
	t.Helper()
	again, err := ty.Parse(dm.SplitWords(l.String()))
	if err != nil || !reflect.DeepEqual(l, again) {
		t.Errorf("%s: %#v is printed as %s, and that is %#v, %v", ty.Name, l, l, again, err)
	}
}

// FuzzStatuses understands a line "TYPE STATUS". What is understood is printed as
// it was.
func FuzzStatuses(f *testing.F) {
	for _, seed := range []string{
		"snapshot Invalid", "snapshot Merge failed", "snapshot-merge Overflow", "snapshot Unknown", "snapshot 32/4096 16",
		"thin-pool Fail", "thin-pool Error", "thin-pool 1 2/3 4/5 - rw discard_passdown queue_if_no_space - 8 ",
		"thin-pool 1 2/3 4/5 7 out_of_data_space ignore_discard error_if_no_space needs_check 8 ", "thin-pool 1 2/3 4/5 - ro no_discard_passdown queue_if_no_space - 8 ",
		"striped 2 7:0 7:1 1 AD", "striped 1 a 1 A", "delay 0 1 2", "dust 7:0 bypass quiet", "dust 7:0 fail_read_on_bad_block verbose",
		"cache Fail", "cache Error",
		"cache 8 72/2048 128 3/64 1 2 3 4 5 6 7 2 metadata2 writeback 2 migration_threshold 2048 smq 0 rw - ",
		"cache 8 72/2048 64 0/0 0 0 0 0 0 0 0 2 passthrough no_discard_passdown 2 migration_threshold 0 mq 2 random_threshold 0 ro needs_check ",
		"log-writes 3 4", "log-writes 3 4 logging_disabled", "thin Fail", "thin Error", "thin 0 -", "thin 8 127", "verity V", "verity C", "integrity 0 16 -", "integrity 3 16 8", "writecache 0 1000 992 8 1 2 3 4 5 6 7 8 9 10", "writecache 1 0 0 0 0 0 0 0 0 0 0 0 0 18446744073709551615", "thin 8 18446744073709551615", "era 8 9/256 1 -", "era 8 9/256 4294967295 77", "era Error", "clone Fail", "clone 8 6/256 64 3/64 2 0 4 hydration_threshold 5 hydration_batch_size 1 rw", "clone 8 6/256 64 3/64 0 2 no_hydration no_discard_passdown 4 hydration_threshold 5 hydration_batch_size 1 ro",
		"thin-rescue search 8 8 0", "mirror 2 7:0 7:1 8/8 1 AA 1 core", "mirror 3 7:0 7:1 7:3 4/5 1 ADR 3 disk 7:2 F",
		"multipath 2 1 0 0 2 1 E 0 1 0 7:0 A 0 D 2 972 0 2 3 7:1 F 4294967295 1024 0 7 7:2 A 0 18446744073709551615 1 2 ", "multipath 2 0 0 0 0 0 ",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		name, words, _ := strings.Cut(text, " ")
		ty := all.Type(name)
		if ty == nil || ty.ParseStatus == nil {
			return
		}
		s, err := ty.ParseStatus(words)
		if err != nil {
			return
		}
		if s.String() != words {
			t.Errorf("%s: %q is understood as %#v, and that is printed as %q", name, words, s, s)
		}
		for _, u := range s.Usage() {
			if u.State != "" && u.State != words {
				t.Errorf("%s: the state of %q is %q", name, words, u.State)
			}
		}
	})
}

// understood sees that what a device says of itself is what its types parse and
// print.
func understood(t testing.TB, d *dm.Device) {
	t.Helper()
	for _, s := range d.Lines(dm.TableText, false, 0) {
		ty := all.Type(s.Type)
		l, err := ty.Parse(dm.SplitWords(s.Params))
		if err != nil || l.String() != s.Params {
			t.Errorf("%s: the table %q is understood as %#v, %v", d.Name(), s, l, err)
		}
	}
	for _, s := range d.Lines(dm.Info, false, 0) {
		ty := all.Type(s.Type)
		if ty.ParseStatus == nil {
			if s.Params != "" {
				t.Errorf("%s: nobody understands the status %q", d.Name(), s)
			}
			continue
		}
		l, err := ty.ParseStatus(s.Params)
		if err != nil || l.String() != s.Params {
			t.Errorf("%s: the status %q is understood as %#v, %v", d.Name(), s, l, err)
		}
	}
}

// TestOwnWords has every target's words from a running device.
func TestOwnWords(t *testing.T) {
	r := targettest.New(t, all.Types())
	seen := make(map[string]bool)
	ds := talkers(r)
	ds["all"] = r.Device("all", "0 8 zero\n8 8 error\n16 64 striped 2 8 m 0 n 8\n80 8 delay m 1 2 n 3 4\n88 8 flakey m 0 1 2 6 drop_writes corrupt_bio_byte 1 r 2 0\n96 64 unstriped 2 8 1 m 0")
	r.Message(ds["pool"], "create_thin 1", "", 0)
	ds["external"] = r.Device("external", "0 1024 thin /dev/mapper/pool 1 m")
	ds["merge"] = r.Device("merge", "0 4096 snapshot-merge o p PO 8 2 discard_zeroes_cow discard_passdown_origin")
	ds["verity"] = r.ReadOnly("verity", "0 8 verity 1 q r 4096 4096 1 0 sha256 "+verityRoot+" -")
	ds["rescue"] = r.ReadOnly("rescue", "0 128 thin-rescue b a 0")
	r.Sim.Run()
	for _, d := range ds {
		understood(t, d)
		for _, s := range d.Lines(dm.Info, false, 0) {
			seen[s.Type] = true
		}
	}
	for _, ty := range all.Types() {
		if !seen[ty.Name] {
			t.Errorf("no device of the target %s", ty.Name)
		}
	}
}
