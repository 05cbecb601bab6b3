package thintools

import "udm/targets/thin/thinmeta"

// Header is the part of a dump about the pool as a whole.
type Header struct {
	UUID          string
	Time          uint32
	TransactionID uint64
	Flags         uint32
	Version       uint32
	DataBlockSize uint32 // sectors
	DataBlocks    uint64
}

// Run is a run of thin blocks that were mapped at the same time to consecutive data
// blocks.
type Run struct {
	Thin, Data, Len uint64
	Time            uint32
}

// emitter receives metadata in order: the header, then for each device its details
// and its runs.
type emitter interface {
	begin(Header) error
	device(id uint32, d thinmeta.Details) error
	run(Run) error
	endDevice() error
	end() error
}

// runner merges mappings into runs.
type runner struct {
	emit func(Run) error
	r    Run
}

func (j *runner) add(thin uint64, v thinmeta.BlockTime) error {
	r := &j.r
	if r.Len > 0 && thin == r.Thin+r.Len && v.Block == r.Data+r.Len && v.Time == r.Time {
		r.Len++
		return nil
	}
	err := j.flush()
	j.r = Run{thin, v.Block, 1, v.Time}
	return err
}

func (j *runner) flush() error {
	r := j.r
	j.r.Len = 0
	if r.Len == 0 {
		return nil
	}
	return j.emit(r)
}
