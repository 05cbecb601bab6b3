package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"time"

	"udm/blk"
	"udm/blk/memdev"
	"udm/blk/nulldev"
	"udm/dm"
	"udm/env"
	"udm/targets/cache"
)

// The targets for disks that are near and far: what a bio costs that clone, era, ebs,
// multipath, cache and writecache pass on, and a cache before a slow disk, beside those of
// nbdkit and qemu.

const (
	cacheBlock = 64 // sectors
	largeFill  = 2048
)

func benchTiers(r *report) error {
	if err := r.tierBios(); err != nil {
		return err
	}
	return r.hotSet()
}

// tier is a device whose blocks, which begin every step sectors, are on the way that is
// measured.
type tier struct {
	name string
	op   blk.Op
	dev  *dm.Device
	step uint64
}

func (r *report) tierBios() error {
	tiers, s, err := tierDevices()
	if err != nil {
		return err
	}
	const one = "copy 4 KiB, cached"
	small := make([]byte, 8192)
	cases := []measured{ns(one, bioCount, func(int) { copy(small[:4096], small[4096:]) })}
	for _, t := range tiers {
		cases = append(cases, perOp(t.name, t.op, t.dev, t.step))
	}
	if err := r.group("tiers", cases...); err != nil {
		return err
	}
	for _, t := range tiers {
		r.atMost(5, r.ratio("tiers", t.name, one), "a bio through %s, in cached copies", t.name)
		r.atMost(0, allocationsOf(t.op, t.dev, t.step), "allocations per bio through %s", t.name)
	}
	return s.close()
}

// headed is a disk that does nothing but for its first sectors, which have metadata.
type headed struct {
	blk.Device
	head    blk.Device
	sectors uint64
}

func (h headed) Submit(b *blk.Bio) {
	if b.Op.HasData() && b.Sector < h.sectors {
		h.head.Submit(b)
		return
	}
	h.Device.Submit(b)
}

// tierDevices makes the devices over disks that do nothing, with every block where it is
// measured.
func tierDevices() (tiers []tier, s *stack, err error) {
	const fast = 4 * bioBlocks // blocks of the writecache, of which a quarter is used
	head := uint64(64+fast*16+4095) / 4096 * 8
	s = newStack(map[string]blk.Device{
		"null": nulldev.New(bioBlocks * cacheBlock), "ssd": nulldev.New(bioBlocks * cacheBlock),
		"m1": memdev.New(1 << 16), "m2": memdev.New(1 << 16), "m3": memdev.New(1 << 16),
		"fast": headed{nulldev.New(head + fast*8), memdev.New(head), head},
	})
	// Caches come last: what is written to them is copied beside the others' bios.
	for _, t := range []struct {
		tier
		table string
		fill  uint64 // sectors of the writes that bring everything there
	}{
		{tier{"clone, hydrated", blk.Read, nil, 8}, fmt.Sprintf("0 %d clone m1 null null 8 1 no_hydration", 8*(bioBlocks+1)), 8}, // one region is left
		{tier{"era, written before", blk.Write, nil, 8}, fmt.Sprintf("0 %d era m2 null 8", 8*bioBlocks), largeFill},
		{tier{"ebs, whole blocks", blk.Write, nil, 8}, fmt.Sprintf("0 %d ebs null 0 1 8", 8*bioBlocks), largeFill},
		{tier{"multipath, two paths", blk.Write, nil, 8}, fmt.Sprintf("0 %d multipath 0 0 1 1 round-robin 0 2 1 null 1 ssd 1", 8*bioBlocks), largeFill},
		{tier{"cache, read hit", blk.Read, nil, cacheBlock}, fmt.Sprintf("0 %d cache m3 ssd null %d 1 writeback smq 0", cacheBlock*bioBlocks, cacheBlock), cacheBlock},
		{tier{"cache, write hit", blk.Write, nil, cacheBlock}, "", 0},
		{tier{"writecache, read hit", blk.Read, nil, 8}, fmt.Sprintf("0 %d writecache s null fast 4096 0", 8*bioBlocks), 8},
		{tier{"writecache, write hit", blk.Write, nil, 8}, "", 0},
	} {
		if t.table == "" { // the device before
			t.dev = tiers[len(tiers)-1].dev
		} else if t.dev, err = s.device(fmt.Sprint("tier", len(tiers)), "%s", t.table); err == nil {
			err = fill(t.dev, t.step*bioBlocks, t.fill)
		}
		if err != nil {
			return nil, s, fmt.Errorf("%s: %w", t.name, err)
		}
		tiers = append(tiers, t.tier)
	}
	return tiers, s, resident(tiers[4].dev)
}

// fill writes the first sectors of a device, n at a time, and flushes.
func fill(d *dm.Device, sectors, n uint64) error {
	for at := uint64(0); at < sectors; at += n {
		if err := write(d, at, n); err != nil {
			return err
		}
	}
	return blk.FlushDevice(env.Real(), d)
}

// resident fails unless all blocks are in a cache, and waits until they are clean.
func resident(d *dm.Device) error {
	for {
		st, err := cache.ParseStatus(d.Lines(dm.Info, false, 0)[0].Params)
		switch {
		case err != nil:
			return err
		case st.Resident != bioBlocks:
			return fmt.Errorf("%d of %d blocks are in the cache", st.Resident, bioBlocks)
		case st.Dirty == 0:
			return nil
		}
		time.Sleep(100 * time.Millisecond) // a cache tells of no event when it is clean
	}
}

// The hot set: reads at random from the last part of a disk that takes 2 ms for each
// request, through caches of twice that size, beside the fast disk of the cache alone.

const (
	hotSet   = 16 << 20 // bytes
	slowTime = "2ms"
)

func (r *report) hotSet() error {
	depths := []int{1, 16}
	var loads []load
	for _, d := range depths {
		loads = append(loads, load{"randread", "4k", d, 1, hotSet})
	}
	const kind = "hot set of 16 MiB"
	if err := r.beside(kind, []string{"fio", "nbdkit", "qemu-nbd", "qemu-img"}, startHotSet, loads, warm); err != nil {
		return err
	}
	for _, l := range loads {
		g := kind + ": " + l.String()
		r.atLeast(0.9, r.ratio(g, "udm cache", "udm fast"), "%s: a cache before a disk of 2 ms over the fast disk", g)
		r.atLeast(1, r.ratio(g, "udm cache", "nbdkit cache"), "%s: udm cache over nbdkit's filter", g)
		r.atLeast(1, r.ratio(g, "udm cache", "qemu copy-on-read"), "%s: udm cache over qemu's copy-on-read", g)
	}
	return nil
}

// startHotSet starts the servers.
func startHotSet(dir string) (servers []*server, stop func(), err error) {
	stop = func() { stopAll(servers) }
	sectors := nbdSize / 512
	servers, err = serveDevices(dir, []string{"fast", "cache", "slow"}, [][]string{
		{"create", "fast", "--table", fmt.Sprintf("0 %d linear mem:%d:fast 0", sectors, nbdSize)},
		{"create", "slow", "--table", fmt.Sprintf("0 %d delay mem:%d:slow 0 2", sectors, nbdSize)},
		{"create", "cache", "--table", fmt.Sprintf("0 %d cache mem:16M:meta mem:%d:ssd /dev/mapper/slow %d 1 writeback smq 0", sectors, 2*hotSet, cacheBlock)},
	})
	for _, c := range [][]string{
		{"nbdkit cache", "nbdkit", "-f", "-U", "SOCK", "--filter=cache", "--filter=delay", "memory", fmt.Sprint(nbdSize), "rdelay=" + slowTime, "wdelay=" + slowTime,
			"cache-on-read=true", "cache-min-block-size=64K"},
		{"nbdkit slow", "nbdkit", "-f", "-U", "SOCK", "--filter=delay", "memory", fmt.Sprint(nbdSize), "rdelay=" + slowTime, "wdelay=" + slowTime},
	} {
		if err == nil {
			servers, err = launch(dir, servers, c[0], c[1:]...)
		}
	}
	if err == nil {
		servers, err = launchQEMU(dir, servers)
	}
	return servers, stop, err
}

// launchQEMU adds qemu-nbd with an overlay of the slow disk of nbdkit into which all that
// is read is copied.
func launchQEMU(dir string, servers []*server) ([]*server, error) {
	overlay := filepath.Join(dir, "hot.qcow2")
	slow := "nbd+unix:///?socket=" + socketOf(dir, "nbdkit slow")
	if out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", "-b", slow, "-F", "raw", overlay).CombinedOutput(); err != nil {
		return servers, fmt.Errorf("qemu-img: %s", out)
	}
	return launch(dir, servers, "qemu copy-on-read", "qemu-nbd", "-t", "-e", "8", "-k", "SOCK", "--image-opts",
		"driver=copy-on-read,file.driver=qcow2,file.file.driver=file,file.file.filename="+overlay)
}

// warmTime is longer than the minute after which the policy smq, here as in Linux, looks at
// all blocks again: before that, nothing leaves a cache that was filled at once.
const warmTime = 65 * time.Second

// warm reads the hot set until udm's cache has taken it in. The other two have kept what
// the disks were filled with.
func warm(servers []*server) error {
	for _, s := range servers {
		if s.name == "udm cache" {
			_, err := fio(s, load{"randread", "4k", 16, 1, hotSet}, warmTime)
			return err
		}
	}
	return nil
}
