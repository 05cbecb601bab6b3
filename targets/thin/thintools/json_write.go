package thintools

import "udm/targets/thin/thinmeta"

// jsonEmitter writes a dump as one JSON object, one line for each device and each
// run. It has the content of the XML with udm's field names.
type jsonEmitter struct {
	text
	devices, runs int // written so far, in the dump and for the device
}

func (x *jsonEmitter) field(name string, v uint64) *jsonEmitter {
	x.str(`"`).str(name).str(`": `).n(v)
	return x
}

// comma separates the n-th element of a list from the one before.
func (x *jsonEmitter) comma(n int) *jsonEmitter {
	if n > 0 {
		x.str(",")
	}
	x.str("\n")
	return x
}

func (x *jsonEmitter) begin(h Header) error {
	x.str("{")
	x.field("time", uint64(h.Time)).str(", ")
	x.field("transaction", h.TransactionID).str(", ")
	x.field("flags", uint64(h.Flags)).str(", ")
	x.field("version", uint64(h.Version)).str(", ")
	x.field("dataBlockSectors", uint64(h.DataBlockSize)).str(", ")
	x.field("dataBlocks", h.DataBlocks).str(", \"devices\": [")
	return nil
}

func (x *jsonEmitter) device(id uint32, d thinmeta.Details) error {
	x.comma(x.devices).str("  {")
	x.field("id", uint64(id)).str(", ")
	x.field("mappedBlocks", d.Mapped).str(", ")
	x.field("transaction", d.TransactionID).str(", ")
	x.field("creationTime", uint64(d.Created)).str(", ")
	x.field("snapshottedTime", uint64(d.Snapshotted)).str(", \"mappings\": [")
	x.devices, x.runs = x.devices+1, 0
	return nil
}

func (x *jsonEmitter) run(r Run) error {
	x.comma(x.runs).str("    {")
	x.field("origin", r.Thin).str(", ")
	x.field("data", r.Data).str(", ")
	x.field("length", r.Len).str(", ")
	_, err := x.field("time", uint64(r.Time)).w.WriteString("}")
	x.runs++
	return err
}

func (x *jsonEmitter) endDevice() error { _, err := x.w.WriteString("]}"); return err }

func (x *jsonEmitter) end() error {
	x.str("]}\n")
	return x.w.Flush()
}
