package thintools

import (
	"bufio"
	"io"
	"strconv"

	"udm/targets/thin/thinmeta"
)

// text writes pieces of text and numbers; the first error stays in the buffer.
type text struct {
	w   *bufio.Writer
	num [20]byte
}

// str writes a string, n a number.
func (t *text) str(s string) *text { t.w.WriteString(s); return t }
func (t *text) n(v uint64) *text   { t.w.Write(strconv.AppendUint(t.num[:0], v, 10)); return t }

// attr writes an XML attribute.
func (t *text) attr(name string, v uint64) *text {
	return t.str(" ").str(name).str(`="`).n(v).str(`"`)
}

// xmlEmitter writes the XML of thin_dump, byte for byte.
type xmlEmitter struct{ text }

// humanEmitter writes the human_readable form of thin_dump.
type humanEmitter struct{ text }

func newText(w io.Writer) text { return text{w: bufio.NewWriterSize(w, 1<<16)} }

func (x *xmlEmitter) begin(h Header) error {
	x.str(`<superblock uuid=""`).attr("time", uint64(h.Time)).attr("transaction", h.TransactionID)
	x.attr("flags", uint64(h.Flags)).attr("version", uint64(h.Version))
	x.attr("data_block_size", uint64(h.DataBlockSize)).attr("nr_data_blocks", h.DataBlocks).str(">\n")
	return nil
}

func (x *xmlEmitter) device(id uint32, d thinmeta.Details) error {
	x.str("  <device").attr("dev_id", uint64(id)).attr("mapped_blocks", d.Mapped).attr("transaction", d.TransactionID)
	x.attr("creation_time", uint64(d.Created)).attr("snap_time", uint64(d.Snapshotted)).str(">\n")
	return nil
}

func (x *xmlEmitter) run(r Run) error {
	if r.Len == 1 {
		x.str("    <single_mapping").attr("origin_block", r.Thin).attr("data_block", r.Data)
	} else {
		x.str("    <range_mapping").attr("origin_begin", r.Thin).attr("data_begin", r.Data).attr("length", r.Len)
	}
	_, err := x.attr("time", uint64(r.Time)).w.WriteString("/>\n")
	return err
}

func (x *xmlEmitter) endDevice() error { _, err := x.w.WriteString("  </device>\n"); return err }
func (x *xmlEmitter) end() error       { x.str("</superblock>\n"); return x.w.Flush() }

func (x *humanEmitter) begin(h Header) error {
	x.str(`begin superblock: ""`)
	for _, v := range []uint64{uint64(h.Time), h.TransactionID, uint64(h.Flags), uint64(h.Version), uint64(h.DataBlockSize), h.DataBlocks} {
		x.str(", ").n(v)
	}
	x.str("\n")
	return nil
}

func (x *humanEmitter) device(id uint32, d thinmeta.Details) error {
	x.str("device: ").n(uint64(id)).str("\nmapped_blocks: ").n(d.Mapped).str("\ntransaction: ").n(d.TransactionID)
	x.str("\ncreation time: ").n(uint64(d.Created)).str("\nsnap time: ").n(uint64(d.Snapshotted)).str("\n")
	return nil
}

func (x *humanEmitter) run(r Run) error {
	x.str("    ")
	if r.Len == 1 {
		x.n(r.Thin).str(" -> ").n(r.Data)
	} else {
		x.span(r.Thin, r.Len).str(" -> ").span(r.Data, r.Len)
	}
	_, err := x.str(", ").n(uint64(r.Time)).w.WriteString("\n")
	return err
}

func (t *text) span(begin, n uint64) *text {
	return t.str("(").n(begin).str("..").n(begin + n - 1).str(")")
}

func (x *humanEmitter) endDevice() error { _, err := x.w.WriteString("\n"); return err }
func (x *humanEmitter) end() error       { x.str("end superblock\n"); return x.w.Flush() }
