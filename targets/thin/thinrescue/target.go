package thinrescue

import (
	"sync"
	"syscall"

	"udm/blk"
	"udm/dm"
	"udm/env"
)

// Type is the target type, to be given to dm.NewControl. The kernel has none like it.
func Type() *dm.Type {
	return &dm.Type{Name: "thin-rescue", Version: [3]uint32{1, 0, 0}, New: construct,
		Parse: dm.Parser(ParseLine), ParseStatus: dm.StatusParser(ParseStatus), Doc: doc}
}

const doc = `thin-rescue: a volume of a damaged pool, as far as it can be read

Table:
  thin-rescue METADATA DATA VOLUME [COUNT OPTION…]
    METADATA, DATA   the devices of the pool, which nobody may have open for writing
    VOLUME           the number of the volume, or @ and its root, as in udm rescue
    COUNT            how many words follow
    block_size N     the pool's blocks have N sectors; needed if the superblock is lost
    outdated         read what is lost as older transactions had it
    certain          what was found by search cannot be read
  The device must be read-only. Nothing is ever written to METADATA and DATA. What is
  lost cannot be read: EIO.

Status (dmsetup status):
  SOURCE MAPPED SEARCHED GAPS
    SOURCE     how the trees were found: superblock, damaged-superblock or search
    MAPPED     sectors whose mappings were found
    SEARCHED   those of them that were found by search: they may be out of date
    GAPS       in how many ranges mappings are lost

Messages:
  none

udm rescue lists the volumes. The kernel has no such target.

Example: volume 5 of a pool with blocks of 64 KiB, whose superblock is lost
  0 2097152 thin-rescue /srv/p.metadata /srv/p.data 5 2 block_size 128
`

// rescue is a device with a volume. All metadata are read by the owner, the works of
// queue. Lock order: mu is a leaf.
type rescue struct {
	target     *dm.Target
	line       *Line
	meta, data *dm.Dev
	pool       *Pool
	volume     *Volume
	queue      env.Queue
	work       *env.Work // serve
	wait       env.Wait

	mu     sync.Mutex
	clones dm.CloneList // guarded by mu; they wait for the owner
}

func construct(t *dm.Target, args []string) (dm.Mapper, error) {
	if t.Writable() {
		return nil, invalid("Device must be readonly")
	}
	l, err := ParseLine(args)
	if err != nil {
		return nil, err
	}
	r := &rescue{target: t, line: l}
	if r.meta, err = t.Open(l.Metadata, false); err != nil {
		return nil, dm.Because(err, "Error opening metadata device")
	}
	if r.data, err = t.Open(l.Data, false); err != nil {
		return nil, dm.Because(err, "Error opening data device")
	}
	r.pool, err = Examine(t.Env(), r.meta, Options{BlockSectors: l.BlockSectors, DataSectors: r.data.Limits().Size, Outdated: l.Outdated, CacheBytes: 16 << 20})
	if err == nil {
		r.volume, err = r.pool.Volume(l.Volume)
	}
	if err != nil {
		return nil, dm.Errorf(syscall.ENODATA, "%v", err)
	}
	t.MaxIOLen = r.pool.BlockSectors
	r.queue, r.wait = t.Env().NewQueue("dm-thin-rescue"), t.Env().NewWait()
	r.work = env.NewWork(r.serve)
	return r, nil
}

func (r *rescue) Close() { r.queue.Close() }

// Map gives reads to the owner.
func (r *rescue) Map(c *dm.Clone) dm.Outcome {
	if c.Op != blk.Read {
		return dm.Kill
	}
	r.mu.Lock()
	r.clones.Push(c)
	r.mu.Unlock()
	r.queue.Queue(r.work)
	return dm.Submitted
}

func (r *rescue) serve() {
	for {
		r.mu.Lock()
		c := r.clones.Pop()
		r.mu.Unlock()
		if c == nil {
			return
		}
		r.read(c)
	}
}

// read serves a read, which lies in one block.
func (r *rescue) read(c *dm.Clone) {
	block, in := c.Offset()/r.pool.BlockSectors, c.Offset()%r.pool.BlockSectors
	switch run := r.find(block, block+1); run.State {
	case Hole:
		c.Zero()
		c.Complete(blk.OK)
	case Lost:
		c.Complete(blk.IOErr)
	default:
		c.SetDev(r.data)
		c.Sector = run.Data*r.pool.BlockSectors + in
		if c.EndSector() > r.data.Limits().Size {
			c.Complete(blk.IOErr)
			return
		}
		c.Issue()
	}
}

func (r *rescue) find(block, end uint64) Run {
	run := r.volume.Find(block, end)
	if r.line.Certain && run.Found {
		run.State = Lost
	}
	return run
}

// maxExtents is how many extents are told at once.
const maxExtents = 1024

// Extents has the owner tell what is mapped. What is lost counts as data: it is not known
// to be zeroes.
func (r *rescue) Extents(offset, sectors uint64) (list []blk.Extent) {
	size, end := r.pool.BlockSectors, offset+sectors
	done := false
	r.queue.Queue(env.NewWork(func() {
		for at := offset; at < end && len(list) < maxExtents; {
			run := r.find(at/size, (end+size-1)/size)
			n := min(end, (run.Thin+run.Len)*size) - at
			list = blk.AppendExtent(list, blk.Extent{Sector: at, Sectors: n, Data: run.State != Hole})
			at += n
		}
		r.mu.Lock()
		done = true
		r.mu.Unlock()
		r.wait.Wake()
	}))
	r.wait.Until(func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return done
	})
	return list
}

// Status implements [dm.StatusHook].
func (r *rescue) Status(kind dm.StatusKind, _ dm.StatusFlags) string {
	if kind == dm.Info {
		size := r.pool.BlockSectors
		s := Status{string(r.pool.Source), r.volume.Mapped * size, r.volume.Searched * size, r.volume.Gaps}
		return s.String()
	}
	l := *r.line
	l.Metadata, l.Data = r.meta.Name(), r.data.Name()
	return l.String()
}

// Areas implements [dm.AreasHook].
func (r *rescue) Areas() []dm.Area {
	return []dm.Area{{Dev: r.data, Len: r.data.Limits().Size}}
}
