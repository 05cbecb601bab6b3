package all_test

import (
	"strings"
	"syscall"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
	"udm/targets/all"
)

// memories opens memory disks by number, each for one open.
type memories struct{}

func (memories) Open(name string, _ bool) (blk.Device, dm.Number, error) {
	minor, ok := strings.CutPrefix(name, "disk")
	if !ok {
		return nil, dm.Number{}, dm.Errorf(syscall.ENODEV, "no %s", name)
	}
	return memdev.New(diskSectors), dm.Number{Major: 7, Minor: uint32(minor[0] - '0')}, nil
}

// Every target may be loaded over a device that has no live table, at each place
// of its line where a device stands, or refuses it in words, and nothing stays
// open.
func TestTargetsOverADeviceWithoutATable(t *testing.T) {
	for _, line := range []string{
		"linear DEV 0", "striped 2 8 DEV 0 DEV 512", "error", "zero", "delay DEV 0 10 DEV 0 10", "flakey DEV 0 1 1",
		"dust DEV 0 512", "ebs DEV 8 1 8", "multipath 0 0 1 1 round-robin 0 2 0 DEV DEV", "crypt aes-cbc-plain " + cryptKey + " 0 DEV 0", "log-writes DEV DEV", "snapshot DEV DEV P 8", "snapshot DEV DEV N 8", "snapshot-origin DEV",
		"snapshot-merge DEV DEV P 8", "mirror core 1 8 2 DEV 0 DEV 0", "mirror disk 2 DEV 8 2 DEV 0 DEV 0", "thin DEV 0", "thin DEV 0 DEV",
		"thin-pool DEV DEV 128 0", "integrity DEV 0 - J 1 internal_hash:crc32c", "writecache s DEV DEV 512 0", "integrity DEV 0 - D 2 internal_hash:crc32c meta_device:DEV", "verity 1 DEV DEV 512 512 40 1 sha256 " + verityRoot + " - 8 use_fec_from_device DEV fec_blocks 50 fec_start 1 fec_roots 2",
	} {
		for at := range strings.Count(line, "DEV") {
			t.Run(line, func(t *testing.T) { loadOverNoTable(t, line, at) })
		}
	}
}

func loadOverNoTable(t *testing.T, line string, at int) {
	words, disk := strings.Fields(line), 0
	for i, w := range words {
		if w != "DEV" {
			continue
		}
		words[i] = "disk" + string(rune('0'+disk))
		if disk == at {
			words[i] = "/dev/mapper/bare"
		}
		disk++
	}
	sim := env.NewStepped()
	c := dm.NewControl(sim, memories{}, all.Types()...)
	create := func(name string) *dm.Device {
		d, err := c.Create(name, "", -1)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	bare, top := create("bare"), create("top")
	load := func(d *dm.Device, typ, params string) error {
		return d.Load([]dm.Spec{{Start: 0, Len: 1024, Type: typ, Params: params}}, dm.Mode{Write: typ != "verity"})
	}
	if err := load(bare, "zero", ""); err != nil { // and never resumed
		t.Fatal(err)
	}
	var err error
	ended := false
	sim.Go("load", func() {
		if err = load(top, words[0], strings.Join(words[1:], " ")); err == nil {
			err = top.Resume(t.Context(), false)
		}
		ended = true
	})
	sim.Run()
	if !ended {
		t.Fatal("loading has not ended")
	}
	t.Log(err)
	sim.Go("close", func() { err = c.Close() })
	sim.Run()
	if err != nil {
		t.Fatal(err)
	}
}
