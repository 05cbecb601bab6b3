package nbd

// decoder reads integers and strings from an option's data. It sets bad if the
// data ends too soon.
type decoder struct {
	p   []byte
	bad bool
}

func (d *decoder) bytes(n int) []byte {
	if d.bad || n < 0 || n > len(d.p) {
		d.bad = true
		return nil
	}
	p := d.p[:n]
	d.p = d.p[n:]
	return p
}

func (d *decoder) u16() uint16 {
	if p := d.bytes(2); p != nil {
		return be.Uint16(p)
	}
	return 0
}

func (d *decoder) u32() uint32 {
	if p := d.bytes(4); p != nil {
		return be.Uint32(p)
	}
	return 0
}

// str reads a 32-bit length and that many bytes.
func (d *decoder) str() string {
	n := d.u32()
	if uint64(n) > uint64(len(d.p)) {
		d.bad = true
		return ""
	}
	return string(d.bytes(int(n)))
}

// end reports whether the data was well-formed and is consumed.
func (d *decoder) end() bool { return !d.bad && len(d.p) == 0 }
