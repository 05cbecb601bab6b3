package all_test

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
	"udm/targets/all"
)

const killedSize = 1024 // sectors of the devices that are written to

// killedCase is a stack whose last device is written to.
type killedCase struct {
	tables  string // "NAME: TABLE" or "NAME! MESSAGE", one a line
	fill    bool   // its checksums need a write of every sector first
	whole   bool   // write whole blocks of 64 sectors, else parts of them
	forgets bool   // it loses writes that it has ended
	always  bool   // it does not know what it would lose
}

var killedCases = map[string]killedCase{
	"linear":             {tables: "d: 0 1024 linear a 0"},
	"striped":            {tables: "d: 0 1024 striped 2 8 a 0 b 0"},
	"snapshot":           {tables: "d: 0 1024 snapshot a b P 8"},
	"mirror":             {tables: "d: 0 1024 mirror disk 2 c 64 2 a 0 b 0"},
	"era":                {tables: "d: 0 1024 era a b 64"},
	"ebs":                {tables: "d: 0 1024 ebs a 0 1 8"},
	"crypt":              {tables: "d: 0 1024 crypt aes-xts-plain64 " + strings.Repeat("5a", 64) + " 0 a 0", fill: true},
	"thin":               {tables: "p: 0 16384 thin-pool a b 128 0\np! create_thin 0\nd: 0 1024 thin /dev/mapper/p 0", forgets: true},
	"linear over thin":   {tables: "p: 0 16384 thin-pool a b 128 0\np! create_thin 0\nv: 0 1024 thin /dev/mapper/p 0\nd: 0 1024 linear /dev/mapper/v 0", forgets: true},
	"clone":              {tables: "d: 0 1024 clone a b c 64 2 no_hydration no_discard_passdown", forgets: true},
	"cache":              {tables: "d: 0 1024 cache a b c 64 1 writeback default 0", forgets: true, whole: true},
	"writecache":         {tables: "d: 0 1024 writecache s a b 4096 0", forgets: true},
	"writecache on thin": {tables: "p: 0 16384 thin-pool a b 128 0\np! create_thin 0\nv: 0 8192 thin /dev/mapper/p 0\nd: 0 1024 writecache s c /dev/mapper/v 4096 0", forgets: true},
	"journal":            {tables: "d: 0 1024 integrity a 0 - J 1 internal_hash:crc32c", fill: true, forgets: true},
	"tags":               {tables: "d: 0 1024 integrity a 0 - D 1 internal_hash:crc32c", fill: true, forgets: true, always: true},
	"bitmap":             {tables: "d: 0 1024 integrity a 0 - B 1 internal_hash:crc32c", fill: true},
}

// killedDisks are disks that outlive the process: what has reached them is there.
type killedDisks map[string]*memdev.Device

func newKilledDisks() killedDisks {
	ds := killedDisks{}
	for _, name := range []string{"a", "b", "c"} {
		ds[name] = memdev.New(16384, memdev.Volatile, memdev.Tune(func(l *blk.Limits) { l.ProcessCache, l.ProcessMemory = false, false }))
	}
	return ds
}

func (ds killedDisks) Open(name string, _ bool) (blk.Device, dm.Number, error) {
	return ds[name], dm.Number{Major: 7, Minor: uint32(name[0] - 'a')}, nil
}

// after is what a process finds that begins when another one was killed.
func (ds killedDisks) after() killedDisks {
	list := killedDisks{}
	for name, d := range ds {
		list[name] = d.CrashCloneAll()
	}
	return list
}

// process is a process that has opened a stack.
type process struct {
	t    *testing.T
	sim  *env.Sim
	ctl  *dm.Control
	last *dm.Device
	dev  blk.Device
}

func (ds killedDisks) open(t *testing.T, tables string) *process {
	p := &process{t: t, sim: env.NewStepped()}
	p.ctl = dm.NewControl(p.sim, ds, all.Types()...)
	for line := range strings.Lines(tables) {
		line = strings.TrimSpace(line)
		if name, message, ok := strings.Cut(line, "! "); ok {
			d, err := p.ctl.Name(name)
			p.must(err)
			_, _ = d.Message(0, message) // the second process finds it done
			continue
		}
		name, table, _ := strings.Cut(line, ": ")
		specs, err := dm.ParseTable(table)
		p.must(err)
		p.last, err = p.ctl.Create(name, "", -1)
		p.must(err)
		p.must(p.last.Load(specs, dm.Mode{Write: true}))
		p.must(p.last.Resume(context.Background(), false))
	}
	var err error
	p.dev, err = p.last.OpenFor("test", true)
	p.must(err)
	return p
}

func (p *process) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) close() {
	p.must(p.dev.Close())
	p.must(p.ctl.Close())
}

// has reports whether the device has this content.
func (ds killedDisks) has(t *testing.T, tables string, want []byte) bool {
	p := ds.open(t, tables)
	defer p.close()
	got := make([]byte, len(want))
	err := blk.ReadSectors(p.sim, p.dev, got, 0)
	return err == nil && bytes.Equal(got, want)
}

// What a killed process has answered is there, unless Uncommitted said that it needs a
// flush; and a flush helps.
func TestKilledProcess(t *testing.T) {
	for name, c := range killedCases {
		t.Run(name, func(t *testing.T) { c.test(t) })
	}
}

func (c killedCase) test(t *testing.T) {
	ds := newKilledDisks()
	p := ds.open(t, c.tables)
	defer p.close()
	want := make([]byte, killedSize*blk.SectorSize)
	if c.fill {
		p.must(blk.WriteSectors(p.sim, p.dev, want, 0, 0))
		p.must(blk.FlushDevice(p.sim, p.dev))
	}
	lost := 0
	for i := range uint64(9) {
		sector, n := i*72, uint64(8)
		if c.whole {
			sector, n = i*64, 64
		}
		data := blktest.Pattern(sector, n, i+1)
		copy(want[sector*blk.SectorSize:], data)
		p.must(blk.WriteSectors(p.sim, p.dev, data, sector, 0))
		uncommitted := p.last.Uncommitted()
		if !ds.after().has(t, c.tables, want) {
			lost++
			if !uncommitted {
				t.Errorf("write %d is lost without a warning", i)
			}
		}
		if i%3 != 2 {
			continue
		}
		p.must(blk.FlushDevice(p.sim, p.dev))
		if p.last.Uncommitted() && !c.always {
			t.Errorf("after the flush that follows write %d it wants another one", i)
		}
		if !ds.after().has(t, c.tables, want) {
			t.Errorf("write %d is lost although it was flushed", i)
		}
	}
	if got := p.last.Limits().ProcessCache; got != c.forgets || (lost > 0) != c.forgets {
		t.Errorf("ProcessCache is %v, %d writes were lost, want %v", got, lost, c.forgets)
	}
}
