package snapshot

import (
	"testing"

	"udm/blk"
	"udm/dm"
	"udm/env"
)

func TestNumbersOfTheStore(t *testing.T) {
	for _, kind := range []string{"P", "PO"} {
		r := newGated(t, stepped(), 64, 200)
		d := r.device("s", 64, "snapshot O C "+kind+" 8")
		r.wantInfo("s", "16/200 16")
		r.wantEnd(r.write(d, 8, 8, 2), blk.OK)
		r.wantInfo("s", "24/200 16")
		r.wantData(d, 0, 8, 1)
		r.wantData(d, 8, 8, 2)
		r.wantData(d, 16, 48, 1)
		if got := d.Lines(dm.TableText, false, 0)[0].Params; got != "7:79 7:67 "+kind+" 8" {
			t.Fatalf("table %q", got)
		}
	}
}

func TestStoreOfThreeChunksIsFullAfterOne(t *testing.T) {
	for kind, word := range map[string]string{"P": "Invalid", "PO": "Overflow"} {
		r := newGated(t, stepped(), 64, 24)
		d := r.device("s", 64, "snapshot O C "+kind+" 8")
		r.wantEnd(r.write(d, 8, 3, 2), blk.OK)
		r.wantInfo("s", "24/24 16")
		r.wantEnd(r.write(d, 9, 3, 2), blk.OK)
		nr := d.Status().EventNr
		r.wantEnd(r.write(d, 16, 3, 2), blk.IOErr)
		r.wantInfo("s", word)
		if events := d.Status().EventNr - nr; (events == 1) != (kind == "P") {
			t.Fatalf("%d events", events)
		}
		r.wantEnd(r.write(d, 8, 3, 2), blk.IOErr)
		st := blk.OK
		if kind == "P" {
			st = blk.IOErr
		}
		r.wantEnd(r.read(d, 8, 3), st)
		r.wantEnd(r.read(d, 48, 3), st)
		r.wantEnd(r.start(d, blk.Flush, 0, 0, 0, 0), blk.OK)
	}
}

func TestTransientStore(t *testing.T) {
	r := newGated(t, stepped(), 64, 16)
	d := r.device("s", 64, "snapshot O C N 8")
	r.wantInfo("s", "0/16 0")
	r.wantEnd(r.write(d, 3, 2, 2), blk.OK)
	r.wantInfo("s", "8/16 0")
	r.wantData(d, 3, 2, 2)
	r.wantData(d, 0, 3, 1)
	r.wantEnd(r.write(d, 8, 2, 2), blk.OK)
	r.wantEnd(r.write(d, 16, 2, 2), blk.IOErr)
	r.wantInfo("s", "Invalid")
}

func TestContentSurvivesRestarts(t *testing.T) {
	r := newGated(t, stepped(), 4096, 8192)
	for round := uint64(0); round < 10; round++ {
		o := r.device("o", 4096, "snapshot-origin O")
		r.suspend("o")
		s := r.device("s", 4096, "snapshot O C P 8")
		r.ok(r.resume("o"))
		r.wantData(s, 0, 4096, 1)
		for i := uint64(0); i < 30; i++ {
			r.wantEnd(r.write(o, (round*37+i*101)%4000, 40, 2+round), blk.OK)
		}
		r.wantData(s, 0, 4096, 1)
		r.remove("s")
		r.remove("o")
	}
}

func TestTableErrors(t *testing.T) {
	r := newGated(t, env.Real(), 64, 64)
	r.ok(blk.WriteSectors(r.e, r.disks["C"], make([]byte, 512), 0, 0))
	for table, want := range map[string]string{
		"snapshot O C P":                             "requires 4 or more arguments: invalid argument",
		"snapshot X C P 8":                           "Cannot get origin device: no such device",
		"snapshot O X P 8":                           "Cannot get COW device: no such device",
		"snapshot O O P 8":                           "COW device cannot be the same as origin device: invalid argument",
		"snapshot O C X 8":                           "Couldn't create exception store (Exception store type is not P or N: invalid argument): invalid argument",
		"snapshot O C PX 8":                          "Couldn't create exception store (Unsupported persistent store option: X: invalid argument): invalid argument",
		"snapshot O C P 7":                           "Couldn't create exception store (Chunk size is not a power of 2: invalid argument): invalid argument",
		"snapshot O C P 4194304":                     "Couldn't create exception store (Chunk size is too high: invalid argument): invalid argument",
		"snapshot O C P x":                           "Couldn't create exception store (Invalid chunk size: invalid argument): invalid argument",
		"snapshot O C N 0":                           "Chunk size not set: invalid argument",
		"snapshot O C P 64":                          "Failed to read snapshot metadata (device is too small for a snapshot store: input/output error): input/output error",
		"snapshot O C P 8 3 a b c":                   "Invalid number of feature arguments: invalid argument",
		"snapshot O C P 8 1 what":                    "Unrecognised feature requested: invalid argument",
		"snapshot O C P 8 1 discard_passdown_origin": "discard_passdown_origin feature depends on discard_zeroes_cow: invalid argument",
		"snapshot-origin":                            "origin: incorrect number of arguments: invalid argument",
		"snapshot-origin O 1":                        "origin: incorrect number of arguments: invalid argument",
		"snapshot-merge O C N 8":                     "Snapshot exception store does not support snapshot-merge.: invalid argument",
	} {
		if err := r.load("d", 64, table); err == nil || err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", table, err, want)
		}
	}
	w := registryOf(r.device("d", 64, "snapshot-origin O").Target(0))
	r.remove("d")
	if len(w.groups) != 0 {
		t.Errorf("%d origins left in the registry", len(w.groups))
	}
}
