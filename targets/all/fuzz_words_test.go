package all_test

import (
	"context"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"udm/blk"
	"udm/dm"
	"udm/targets/all"
	"udm/targets/internal/targettest"
	"udm/targets/thin/thintools"
)

// FuzzMessages sends messages, a line "DEVICE SECTOR TEXT" each, to devices of all
// targets that take some. Whatever they say, the devices go on working, say their
// status and can be taken down, and the pool's metadata is whole.
func FuzzMessages(f *testing.F) {
	for _, seed := range []string{
		"pool 0 create_thin 1\npool 0 create_snap 2 0\npool 0 delete 1\npool 0 set_transaction_id 0 5",
		"pool 0 create_snap 3 0\npool 0 delete 0\npool 0 reserve_metadata_snap\npool 0 create_thin 0\npool 0 release_metadata_snap",
		"pool 0 create_thin 16777216\npool 0 create_thin -1\npool 0 delete 99\npool 0 set_transaction_id 1 18446744073709551615",
		"crypt 0 key wipe\ncrypt 0 key set " + cryptKey + "\ncrypt 0 KEY set :32:logon:a\ncrypt 0 key\ncrypt 0 x y",
		"switch 0 set_region_mappings 0:1 R1,3f 5:0 :1\nswitch 0 set_region_mappings R0,1 R9,9 ffffffff:1 1:2",
		"dust 0 addbadblock 7\ndust 0 enable\ndust 0 addbadblock 8 2\ndust 0 listbadblocks\ndust 0 clearbadblocks\ndust 0 quiet",
		"dust 0 queryblock 0x10\ndust 0 removebadblock 7\ndust 0 disable\ndust 0 countbadblocks",
		"log 0 mark here\nlog 0 MARK \"two words\"\nlog 0 mark\nlog 0 mark \\\\",
		"linear 0 @stats_create - /4\nlinear 0 @stats_print 0\nlinear 0 @stats_list\nlinear 0 @stats_set_aux 0 x",
		"linear 0 @stats_create 8+16 4 2 precise_timestamps histogram:1,2,3 prog aux\nlinear 0 @stats_print_clear 0 1 2\nlinear 0 @stats_clear 0\nlinear 0 @stats_delete 0",
		"linear 0 @stats_create 0+18446744073709551615 18446744073709551615\nlinear 0 @cancel_deferred_remove\nlinear 0 @nosuch",
		"cache 0 invalidate_cblocks 0-3 7\ncache 0 migration_threshold 5\ncache 0 sequential_threshold 1\ncache 0 invalidate_cblocks 3-1\ncache 0 x",
		"clone 0 enable_hydration\nclone 0 disable_hydration x\nclone 0 hydration_threshold 0\nclone 0 hydration_batch_size 4294967295\nclone 0 hydration_threshold 9\nclone 0 Enable_hydration",
		"era 0 checkpoint\nera 0 take_metadata_snap\nera 0 TAKE_metadata_snap\nera 0 drop_metadata_snap\nera 0 drop_metadata_snap\nera 0 checkpoint now\nera 9 x",
		"multipath 0 fail_path q\nmultipath 0 switch_group 2\nmultipath 0 disable_group 1\nmultipath 0 reinstate_path 7:16\nmultipath 0 enable_group 3\nmultipath 0 fail_if_no_path\nmultipath 0 fail_path s",
		"snap 0 merge\norigin 0 x\nflakey 99 x\nthin 0 y\ndelay 0 @stats_create -", "none 0 x",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r := targettest.New(t, all.Types())
		ds := talkers(r)
		for i, line := range strings.Split(text, "\n") {
			name, rest, _ := strings.Cut(line, " ")
			number, message, _ := strings.Cut(rest, " ")
			sector, _ := strconv.ParseUint(number, 10, 64)
			if d := ds[name]; d != nil && i < 30 {
				_, _ = d.Message(sector, message)
				r.Sim.Run()
			}
		}
		for _, d := range ds {
			speaks(r, d)
		}
		r.Must(r.Control.Close())
		report, err := thintools.Check(r.Sim, r.Disk("b"), thintools.CheckOptions{})
		r.Must(err)
		r.Must(report.Err())
	})
}

// talkers makes a device of each target.
func talkers(r *targettest.Rig) map[string]*dm.Device {
	ds := make(map[string]*dm.Device)
	for _, d := range [][2]string{
		{"pool", "0 4096 thin-pool b a 128 0"},
		{"thin", ""},
		{"switch", "0 4096 switch 2 64 0 c 0 d 0"},
		{"dust", "0 4096 dust e 0 512"},
		{"log", "0 4096 log-writes f g"},
		{"linear", "0 4096 linear h 0"},
		{"origin", "0 4096 snapshot-origin i"},
		{"snap", "0 4096 snapshot i j P 8"},
		{"flakey", "0 4096 flakey k 0 1 0"},
		{"delay", "0 4096 delay l 0 0"},
		{"ebs", "0 4096 ebs l 8 1 8"},
		{"crypt", "0 4096 crypt aes-cbc-essiv:sha256 " + cryptKey + " 0 m 0"},
		{"clone", "0 4096 clone q r v 64 1 no_hydration"},
		{"era", "0 4096 era o p 64"},
		{"multipath", "0 4096 multipath 3 queue_if_no_path polling_interval 1 0 2 1 service-time 0 2 0 q r historical-service-time 0 1 0 s"},
		{"mirror", "0 4096 mirror disk 2 w 64 2 x 0 y 8 1 handle_errors"},
		{"cache", "0 4096 cache s t u 64 2 metadata2 passthrough mq 2 migration_threshold 64"},
		{"integrity", "0 4096 integrity n 0 - J 2 internal_hash:crc32c recalculate"},
		{"writecache", "0 4096 writecache s w x 512 2 pause_writeback 0"},
	} {
		if d[0] == "thin" {
			r.Message(ds["pool"], "create_thin 0", "", 0)
			d[1] = "0 1024 thin /dev/mapper/pool 0"
		}
		ds[d[0]] = r.Device(d[0], d[1])
	}
	return ds
}

// speaks sees that a device still tells its status and carries out I/O, well or
// not.
func speaks(r *targettest.Rig, d *dm.Device) {
	_, _ = d.Message(0, "fail_if_no_path") // a multipath device would wait
	understood(r, d)
	for _, kind := range []dm.StatusKind{dm.Info, dm.TableText} {
		if len(d.Lines(kind, false, 0)) == 0 {
			r.Errorf("%s says nothing", d.Name())
		}
	}
	for _, b := range []*blk.Bio{{Op: blk.Write, Sector: 8}, {Op: blk.Flush}, {Op: blk.Read}} {
		ended := false
		if b.Op != blk.Flush {
			b.SetData(make([]byte, 4096))
		}
		b.End = func(*blk.Bio) { ended = true }
		d.Submit(b)
		if r.Sim.Advance(1e9); !ended {
			r.Fatalf("%s: %v does not end", d.Name(), b)
		}
	}
}

// number is how a table line names a disk, which the rig knows by its letter.
var number = regexp.MustCompile(`\b7:\d+`)

// FuzzTargets loads a table of one line, "TYPE ARGS", for each target. What is
// accepted works, and its table line means the same.
func FuzzTargets(f *testing.F) {
	for _, seed := range []string{
		"linear a 8", "striped 2 8 a 0 b 8", "zero", "error", "error-if-you-can", "delay a 0 5 b 8 6 a 0 7", "unstriped 2 8 1 a 0", "ebs a 8 1", "ebs a 0 8 65568",
		"flakey a 0 1 2 5 corrupt_bio_byte 32 r 1 0", "flakey a 0 0 9 1 drop_writes", "flakey a 0 1 1 2 error_writes error_reads",
		"dust a 0 512", "era a b 8", "era a b 24", "era a a 128", "clone a b c 8", "clone a b c 128 2 no_hydration no_discard_passdown 2 hydration_threshold 7", "clone a b b 16", "clone a b c 8 0 4 hydration_threshold 0 hydration_batch_size 0", "cache a b c 64 0 smq 0", "cache a b c 128 2 metadata2 passthrough mq 2 random_threshold 5", "cache a a b 64 1 writethrough cleaner 0", "cache a b b 64 0 default 0", "switch 2 64 0 a 0 b 8", "log-writes a b", "crypt aes-xts-plain64 " + cryptKey + " 0 a 8", "crypt twofish:2-cbc-eboiv " + cryptKey + " 8 a 0 2 sector_size:4096 iv_large_sectors",
		"crypt cipher_null-ecb - 0 a 0", "writecache s a b 512 0", "writecache s a a 4096 5 start_sector 8000 cleaner autocommit_blocks 1", "integrity a 0 - J 1 internal_hash:crc32c", "integrity a 0 - B 3 internal_hash:crc32c sectors_per_bit:64 bitmap_flush_interval:7", "integrity a 8 9 D 5 internal_hash:hmac(sha256):00ab meta_device:b block_size:4096 allow_discards fix_hmac", "verity 1 a b 512 512 40 1 sha256 " + verityRoot + " -",
		"verity 0 a b 512 512 40 1 sha256 " + verityRoot + " 12 11 ignore_corruption check_at_most_once ignore_zero_blocks use_fec_from_device c fec_blocks 50 fec_start 1 fec_roots 2", "snapshot a b P 8", "snapshot a b N 16 2 discard_zeroes_cow discard_passdown_origin",
		"snapshot-origin a", "snapshot-merge a b PO 8", "thin-pool a b 128 0", "thin-pool a b 256 5 3 skip_block_zeroing read_only error_if_no_space", "thin a 0",
		"mirror core 1 8 2 a 0 b 0 1 handle_errors", "mirror disk 3 c 16 nosync 2 a 8 b 0", "mirror disk 2 a 8 2 a 0 a 0", "multipath 4 queue_if_no_path queue_mode bio retain_attached_hw_handler 0 2 2 round-robin 0 2 1 a 1 b 9 historical-service-time 2 9 9 1 0 c", "multipath 0 0 0 0",
		"linear a 18446744073709551615", "striped 4294967295 1 a 0", "linear  a\\ b  0 ",
	} {
		f.Add(uint64(4096), seed)
	}
	f.Fuzz(func(t *testing.T, length uint64, text string) {
		r := targettest.New(t, all.Types())
		specs, err := dm.ParseTable("0 " + strconv.FormatUint(length, 10) + " " + text)
		if err != nil || len(specs) != 1 {
			return
		}
		d, err := r.Control.Create("x", "", -1)
		r.Must(err)
		_, wrong := r.Control.ParseLines(specs)
		mode := dm.Mode{Write: specs[0].Type != "verity"}
		err = d.Load(specs, mode)
		if err == nil && wrong != nil {
			r.Errorf("%v is loaded, although it is not understood: %v", specs, wrong)
		}
		if err != nil || d.Resume(context.Background(), false) != nil {
			return
		}
		if d.Status().Sectors >= 16 {
			speaks(r, d)
		}
		line := number.ReplaceAllStringFunc(dm.FormatTable(d.Lines(dm.TableText, false, 0)), func(n string) string {
			minor, _ := strconv.Atoi(n[len("7:"):])
			return string(rune('a' + minor))
		})
		again, err := dm.ParseTable(line)
		r.Must(err)
		r.Must(d.Close())
		d, err = r.Control.Create("x", "", -1)
		r.Must(err)
		if err := d.Load(again, mode); err != nil {
			r.Errorf("%v was accepted, %v is not: %v", specs, again, err)
		}
	})
}
