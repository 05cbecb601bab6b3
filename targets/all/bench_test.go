package all_test

import (
	"context"
	"testing"

	"udm/blk"
	"udm/blk/nulldev"
	"udm/dm"
	"udm/env"
	"udm/targets/all"
)

type nulls struct{}

func (nulls) Open(string, bool) (blk.Device, dm.Number, error) {
	return nulldev.New(1 << 20), dm.Number{Major: 1}, nil
}

// BenchmarkMap is the cost of a 4 KiB read through one target over nothing.
func BenchmarkMap(b *testing.B) {
	for _, c := range []struct{ name, table, message string }{
		{"linear", "0 1048576 linear n 0", ""},
		{"striped", "0 1048576 striped 4 128 n 0 n 0 n 0 n 0", ""},
		{"zero", "0 1048576 zero", ""},
		{"delay0", "0 1048576 delay n 0 0", ""},
		{"flakey-up", "0 1048576 flakey n 0 3600 0", ""},
		{"switch", "0 1048576 switch 2 128 0 n 0 n 0", ""},
		{"ebs", "0 1048576 ebs n 0 1 8", ""},
		{"multipath", "0 1048576 multipath 0 0 1 1 service-time 0 2 0 n m", ""},
		{"crypt", "0 1048576 crypt aes-xts-plain64 " + cryptKey + " 0 n 0", ""},
		{"stats", "0 1048576 linear n 0", "@stats_create - /100"},
		{"stats-precise", "0 1048576 linear n 0", "@stats_create - /100 2 precise_timestamps histogram:1000,10000"},
	} {
		b.Run(c.name, func(b *testing.B) { benchMap(b, c.table, c.message) })
	}
}

func benchMap(b *testing.B, table, message string) {
	c := dm.NewControl(env.Real(), nulls{}, all.Types()...)
	specs, err := dm.ParseTable(table)
	if err != nil {
		b.Fatal(err)
	}
	d, err := c.Create("d", "", -1)
	if err == nil {
		err = d.Load(specs, dm.Mode{Write: true})
	}
	if err == nil {
		err = d.Resume(context.Background(), false)
	}
	if err == nil && message != "" {
		_, err = d.Message(0, message)
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		bio := &blk.Bio{End: func(*blk.Bio) {}}
		bio.SetData(make([]byte, 4096))
		for i := uint64(0); pb.Next(); i++ {
			bio.Rearm()
			bio.Sector = i % 131072 * 8
			d.Submit(bio)
		}
	})
}
