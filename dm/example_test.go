package dm_test

import (
	"context"
	"fmt"
	"log"
	"sync"

	"udm/blk"
	"udm/blk/leaf"
	"udm/dm"
	"udm/env"
	"udm/targets/all"
)

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// A stack from the text of a table, opened as an io.ReaderAt and io.WriterAt.
// In place of mem:1M put the absolute paths of image files.
func Example() {
	e := env.Real()
	c := dm.NewControl(e, leaf.New(e), all.Types()...)
	defer c.Close()
	d, err := c.Create("data", "", -1)
	must(err)
	table, err := dm.ParseTable(`
		# two disks, 64 KiB of each in turn
		0 4096 striped 2 128 mem:1M:a 0 mem:1M:b 0`)
	must(err)
	must(d.Load(table, dm.Mode{Write: true}))
	must(d.Resume(context.Background(), false))

	disk, err := d.Open(true)
	must(err)
	defer disk.Close()
	f := blk.NewFile(e, disk)
	_, err = f.WriteAt([]byte("hello"), 65533) // on both disks
	must(err)
	must(f.Sync())
	p := make([]byte, 5)
	_, err = f.ReadAt(p, 65533)
	must(err)
	fmt.Printf("%s, %d bytes\n", p, f.Size())
	// Output: hello, 2097152 bytes
}

// A stack from values: a device on a device, and bios submitted to it. A bio's
// End runs when it is done, on any goroutine.
func Example_bios() {
	e := env.Real()
	c := dm.NewControl(e, leaf.New(e), all.Types()...)
	defer c.Close()
	run := func(name string, table ...dm.Spec) *dm.Device {
		d, err := c.Create(name, "", -1)
		must(err)
		must(d.Load(table, dm.Mode{Write: true}))
		must(d.Resume(context.Background(), false))
		return d
	}
	run("disk", dm.Spec{Len: 2048, Type: "linear", Params: "mem:1M 0"})
	d := run("half", dm.Spec{Len: 1024, Type: "linear", Params: "/dev/mapper/disk 512"},
		dm.Spec{Start: 1024, Len: 8, Type: "error"})

	var wg sync.WaitGroup
	for _, sector := range []uint64{0, 1024} {
		wg.Add(1)
		b := &blk.Bio{Op: blk.Write, Sector: sector}
		b.SetData(make([]byte, 4096))
		b.End = func(b *blk.Bio) {
			fmt.Printf("write to sector %d: %v\n", sector, b.Status())
			wg.Done()
		}
		d.Submit(b)
	}
	wg.Wait()
	for _, line := range d.Lines(dm.TableText, false, 0) {
		fmt.Println(line)
	}
	// Unordered output:
	// write to sector 0: ok
	// write to sector 1024: I/O error
	// 0 1024 linear 254:0 512
	// 1024 8 error
}

// Statistics of a device, each line an area: its sectors, then reads, merges,
// sectors read and so on, as dmsetup message prints them.
func ExampleDevice_Message() {
	e := env.Real()
	c := dm.NewControl(e, leaf.New(e), all.Types()...)
	defer c.Close()
	d, err := c.Create("d", "", -1)
	must(err)
	must(d.Load([]dm.Spec{{Len: 128, Type: "zero"}}, dm.Mode{}))
	must(d.Resume(context.Background(), false))
	region, err := d.Message(0, "@stats_create - /2")
	must(err)
	must(blk.ReadSectors(e, d, make([]byte, 4096), 60))
	counters, err := d.Message(0, "@stats_print "+region)
	must(err)
	var from, step, reads, merges, sectors int
	_, err = fmt.Sscanf(counters, "%d+%d %d %d %d", &from, &step, &reads, &merges, &sectors)
	must(err)
	fmt.Printf("area %d+%d: %d read of %d sectors\n", from, step, reads, sectors)
	// Output: area 0+64: 1 read of 4 sectors
}

// Several devices in one line, as dmsetup create --concise takes them.
func ExampleParseConcise() {
	devices, err := dm.ParseConcise("a,,,rw,0 8 linear mem:4K 0,8 8 error 5;b,UUID-1,7,ro,0 16 linear /dev/mapper/a 0")
	must(err)
	for _, d := range devices {
		fmt.Printf("%s, minor %d, read-only %v\n%s", d.Name, d.Minor, d.ReadOnly, dm.FormatTable(d.Table))
	}
	fmt.Println(dm.FormatConcise(devices[1:]))
	// Output:
	// a, minor -1, read-only false
	// 0 8 linear mem:4K 0
	// 8 8 error 5
	// b, minor 7, read-only true
	// 0 16 linear /dev/mapper/a 0
	// b,UUID-1,7,ro,0 16 linear /dev/mapper/a 0
}
