package targettest

import (
	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
)

// IO is one bio and its result. Ends counts the calls of End.
type IO struct {
	blk.Bio
	Data []byte
	Ends int
}

// Submit submits a bio, filling a write with the pattern of seed, and runs
// everything that can run.
func (r *Rig) Submit(d *dm.Device, op blk.Op, flags blk.Flags, sector, sectors, seed uint64) *IO {
	x := &IO{}
	x.Op, x.Flags, x.Sector, x.Sectors = op, flags, sector, sectors
	if op.HasData() {
		x.Data = blktest.Pattern(sector, sectors, seed)
		x.SetData(x.Data)
	}
	x.End = func(*blk.Bio) { x.Ends++ }
	d.Submit(&x.Bio)
	r.Sim.Run()
	return x
}

// Done checks that an I/O has ended, once, with st.
func (r *Rig) Done(x *IO, st blk.Status) {
	r.Helper()
	if x.Ends != 1 || x.Status() != st {
		r.Fatalf("%v ended %d times, with %v; want %v", &x.Bio, x.Ends, x.Status(), st)
	}
}

// Held checks that an I/O has not ended.
func (r *Rig) Held(x *IO) {
	r.Helper()
	if x.Ends != 0 {
		r.Fatalf("%v ended with %v", &x.Bio, x.Status())
	}
}

// Do submits an I/O that must end at once with st.
func (r *Rig) Do(d *dm.Device, op blk.Op, sector, sectors, seed uint64, st blk.Status) *IO {
	r.Helper()
	x := r.Submit(d, op, 0, sector, sectors, seed)
	r.Done(x, st)
	return x
}

// Write writes the pattern of seed.
func (r *Rig) Write(d *dm.Device, sector, sectors, seed uint64) {
	r.Helper()
	r.Do(d, blk.Write, sector, sectors, seed, blk.OK)
}

// Want reads and checks for the pattern of seed as written at sector from.
func (r *Rig) Want(d *dm.Device, sector, sectors, from, seed uint64) {
	r.Helper()
	x := r.Do(d, blk.Read, sector, sectors, blktest.MaxSeed, blk.OK)
	if err := blktest.Check(x.Data, from, seed); err != nil {
		r.Fatalf("%s %d+%d: %v", d.Name(), sector, sectors, err)
	}
}

// WantDisk checks the content of a disk, like Want.
func (r *Rig) WantDisk(name string, sector, sectors, from, seed uint64) {
	r.Helper()
	p := make([]byte, sectors*blk.SectorSize)
	r.Must(blk.ReadSectors(r.Sim, r.Disk(name), p, sector))
	if err := blktest.Check(p, from, seed); err != nil {
		r.Fatalf("disk %s %d+%d: %v", name, sector, sectors, err)
	}
}

// Trace checks what reached a disk since the last Trace, a line for each
// request.
func (r *Rig) Trace(name, want string) {
	r.Helper()
	g := r.Gate(name)
	if got := g.Trace(); got != want {
		r.Errorf("disk %s: got\n%swant\n%s", name, got, want)
	}
	g.Forget()
}
