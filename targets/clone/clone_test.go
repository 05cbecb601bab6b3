package clone_test

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
	"udm/targets/clone"
	"udm/targets/internal/targettest"
)

var types = []*dm.Type{clone.Type()}

// TestConforms runs the suite over disks with volatile caches whose power is cut, while
// regions are copied in the background.
func TestConforms(t *testing.T) {
	for _, words := range []string{"16", "64 1 no_discard_passdown 4 hydration_threshold 8 hydration_batch_size 3"} {
		t.Run(words, func(t *testing.T) { targettest.Conforms(t, blktest.Suite{}, types, "0 4096 clone a b c "+words) })
	}
}

func TestRefusals(t *testing.T) {
	targettest.New(t, types).Refuses(`
		0 64 clone a b c => EINVAL Invalid number of arguments
		0 64 clone / b c 8 => ENODEV Error opening metadata device
		0 64 clone a / c 8 => ENODEV Error opening destination device
		0 64 clone a b / 8 => ENODEV Error opening source device
		0 99999 clone a b c 8 => EINVAL Device size larger than destination device
		0 64 clone a b c 4 => EINVAL Invalid region size
		0 64 clone a b c 24 => EINVAL Region size is not a power of 2
		0 64 clone a b c 8 3 x y z => EINVAL Invalid number of feature arguments
		0 64 clone a b c 8 1 hydration => EINVAL Invalid feature argument
		0 64 clone a b c 8 0 1 x => EINVAL Number of core arguments must be even
		0 64 clone a b c 8 0 2 x 1 => EINVAL Invalid core argument`)
}

// TestLines has the lines of a device through its life.
func TestLines(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 128 clone a b c 32 1 No_Hydration")
	r.Lines(d, dm.TableText, "0 128 clone 7:0 7:1 7:2 32 1 No_Hydration")
	r.Lines(d, dm.Info, "0 128 clone 8 6/2048 32 0/4 0 1 no_hydration 4 hydration_threshold 1 hydration_batch_size 1 rw")
	r.Write(d, 40, 8, 1)
	r.Do(d, blk.Discard, 64, 40, 0, blk.OK)
	r.Lines(d, dm.Info, "0 128 clone 8 6/2048 32 2/4 0 1 no_hydration 4 hydration_threshold 1 hydration_batch_size 1 rw")
	for message, errno := range map[string]syscall.Errno{"hydration_threshold 7": 0, "HYDRATION_batch_size +3": 0, "hydration_threshold": syscall.EINVAL,
		"hydration_threshold -1": syscall.EINVAL, "hydration_threshold 1 2": syscall.EINVAL, "hello 1": syscall.EINVAL, "enable_hydration now": 0} {
		r.Message(d, message, "", errno)
	}
	r.Sim.Advance(3e9)
	r.Lines(d, dm.Info, "0 128 clone 8 6/2048 32 4/4 0 0 4 hydration_threshold 7 hydration_batch_size 3 rw")
	r.Lines(d, dm.TableText, "0 128 clone 7:0 7:1 7:2 32 1 No_Hydration")
}

// TestDiscardAwaitsCopy: a discard of a region that is being copied waits, so that the copy
// does not overwrite what is written after the discard.
func TestDiscardAwaitsCopy(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 64 clone a b c 32 1 no_hydration")
	r.Gate("b").Shut()
	first := r.Submit(d, blk.Write, 0, 0, 8, 1) // copies the region
	discard := r.Submit(d, blk.Discard, 0, 0, 32, 0)
	r.Held(first)
	r.Held(discard)
	second := r.Submit(d, blk.Write, 0, 8, 8, 2)
	r.Held(second)
	if held := r.Gate("b").Held(); len(held) != 1 {
		t.Errorf("beside the copy there are at the destination: %v", held)
	}
	r.Gate("b").Open()
	r.Sim.Run()
	r.Done(first, blk.OK)
	r.Done(discard, blk.OK)
	r.Done(second, blk.OK)
	r.Write(d, 16, 8, 3)
	r.Want(d, 16, 8, 16, 3)
}

// TestSuspendAwaitsCopies: a device is suspended when nothing is copied any more. A copy of
// the table before would overwrite what is written through the next one.
func TestSuspendAwaitsCopies(t *testing.T) {
	for _, noflush := range []bool{false, true} {
		r := targettest.New(t, types)
		d := r.Device("x", "0 64 clone a b c 32 1 no_hydration")
		r.Gate("b").Shut()
		r.Message(d, "enable_hydration", "", 0)
		r.Sim.Run()
		if held := r.Gate("b").Held(); len(held) != 1 || held[0].Op != blk.Write {
			t.Fatalf("instead of a copy there are at the destination: %v", held)
		}
		var err error
		over := false
		r.Sim.Go("suspend", func() {
			err = d.Suspend(context.Background(), noflush)
			over = true
		})
		r.Sim.Run()
		if over {
			t.Errorf("noflush %v: the device is suspended beside a copy to it", noflush)
		}
		r.Gate("b").Open()
		r.Sim.Run()
		if !over || err != nil {
			t.Errorf("noflush %v: the suspend does not end, or with %v", noflush, err)
		}
		r.Lines(d, dm.Info, "0 64 clone 8 6/2048 32 1/2 0 0 4 hydration_threshold 1 hydration_batch_size 1 rw")
	}
}

// running makes a device of 512 sectors in the production environment.
func running(t testing.TB, d *disks, words string) *dm.Device {
	t.Helper()
	c := dm.NewControl(env.Real(), d, clone.Type())
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	x, err := c.Create("x", "", -1)
	specs, _ := dm.ParseTable("0 512 clone a b c " + words)
	if err == nil {
		err = x.Load(specs, dm.Mode{Write: true})
	}
	if err == nil {
		err = x.Resume(context.Background(), false)
	}
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// TestWritersBesideHydration writes, flushes and discards from several goroutines, each in
// blocks of its own, while regions that they share are copied.
func TestWritersBesideHydration(t *testing.T) {
	d := &disks{map[string]*memdev.Device{"a": memdev.New(1024), "b": memdev.New(1024), "c": memdev.New(1024)}, func(d blk.Device) blk.Device { return d }}
	x := running(t, d, "32 0 4 hydration_threshold 2 hydration_batch_size 2")
	const writers = 4
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for n := range uint64(64) {
				sector := (n*writers + uint64(w)) * 2
				if err := blk.WriteSectors(env.Real(), x, blktest.Pattern(sector, 2, n+1), sector, 0); err != nil {
					t.Error(err)
				}
				if n%8 == 0 {
					if err := blk.FlushDevice(env.Real(), x); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	for s := uint64(0); s < 512; s += 2 {
		p := make([]byte, 1024)
		if err := blk.ReadSectors(env.Real(), x, p, s); err != nil {
			t.Fatal(err)
		}
		if err := blktest.Check(p, s, s/2/writers+1); err != nil {
			t.Error(fmt.Errorf("sector %d: %w", s, err))
		}
	}
}

// BenchmarkHydrated is a write to a hydrated region while others are not.
func BenchmarkHydrated(b *testing.B) {
	d := &disks{map[string]*memdev.Device{"a": memdev.New(1024), "b": memdev.New(1024), "c": memdev.New(1024)}, func(d blk.Device) blk.Device { return d }}
	x := running(b, d, "32 1 no_hydration")
	bio := &blk.Bio{Op: blk.Write}
	bio.SetData(make([]byte, 4096))
	if st := blk.Do(env.Real(), x, bio); st != blk.OK {
		b.Fatal(st)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		bio := &blk.Bio{Op: blk.Write, End: func(*blk.Bio) {}}
		bio.SetData(make([]byte, 4096))
		for pb.Next() {
			bio.Rearm()
			bio.SetData(bio.Bufs[0])
			bio.Sector = 0
			x.Submit(bio)
		}
	})
}
