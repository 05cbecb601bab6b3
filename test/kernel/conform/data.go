//go:build unix

package conform

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// keep opens a device until it is closed.
func (r *runner) keep(verb string, args []string) ([]string, error) {
	if len(args) != 1 {
		return nil, errors.New("want one device")
	}
	if verb == "open" {
		d, err := r.host.Open(r.expand(args[0]))
		if err == nil {
			r.opened[args[0]] = d
		}
		return errorLine(err)
	}
	d, ok := r.opened[args[0]]
	if !ok {
		return []string{"error not open"}, nil
	}
	delete(r.opened, args[0])
	return errorLine(d.Close())
}

// argument counts of the data commands after the device.
var dataArgs = map[string]int{"write": 3, "read": 2, "discard": 2, "zero": 2, "flush": 0, "peek": 2, "poke": 2, "limits": 0}

// data opens the device, runs one data command on it and closes it.
func (r *runner) data(verb string, args []string) ([]string, error) {
	if want, ok := dataArgs[verb]; !ok || len(args) != want+1 {
		return nil, fmt.Errorf("%s wants %d arguments", verb, want+1)
	}
	type result struct {
		out []string
		err error
	}
	done := make(chan result, 1)
	go func() {
		out, err := r.dataNow(verb, args)
		done <- result{out, err}
	}()
	ctx, cancel := limited()
	defer cancel()
	select {
	case res := <-done:
		return res.out, res.err
	case <-ctx.Done():
		return []string{"hangs"}, nil
	}
}

func (r *runner) dataNow(verb string, args []string) ([]string, error) {
	d, err := r.host.Open(r.expand(args[0]))
	if err != nil {
		return errorLine(err)
	}
	out, err := access(d, verb, args[1:])
	if err == nil {
		err = d.Close()
	} else {
		_ = d.Close()
	}
	if err != nil {
		return errorLine(err)
	}
	return out, nil
}

// access runs a data command on an open device.
func access(d Device, verb string, args []string) ([]string, error) {
	var n [3]int64
	for i, a := range args {
		if verb == "poke" && i == 1 {
			break
		}
		v, err := strconv.ParseInt(a, 10, 64)
		if err != nil {
			return nil, err
		}
		n[i] = v
	}
	off, size := n[0]*SectorSize, n[1]*SectorSize
	switch verb {
	case "write":
		buf := make([]byte, size)
		Fill(buf, n[2], n[0])
		return nil, d.Write(buf, off)
	case "read":
		buf := make([]byte, size)
		if err := d.Read(buf, off); err != nil {
			return nil, err
		}
		return Describe(buf, n[0]), nil
	case "discard":
		return nil, d.Discard(off, size)
	case "zero":
		return nil, d.Zero(off, size)
	case "flush":
		return nil, d.Flush()
	case "limits":
		return limits(d)
	case "peek":
		return peek(d, n[0], n[1])
	}
	return nil, poke(d, n[0], args[1])
}

func limits(d Device) ([]string, error) {
	l, err := d.Limits()
	if err != nil {
		return nil, err
	}
	return []string{fmt.Sprintf("sectors %d, block %d, read-only %v, discard %v", l.Sectors, l.Block, l.ReadOnly, l.Discard && !l.ReadOnly)}, nil
}

// window reads the 4 KiB blocks around the bytes [off, off+n) and returns them with their own offset.
func window(d Device, off, n int64) ([]byte, int64, error) {
	const block = 4096
	from := off / block * block
	to := (off + n + block - 1) / block * block
	buf := make([]byte, to-from)
	return buf, from, d.Read(buf, from)
}

func peek(d Device, off, n int64) ([]string, error) {
	buf, from, err := window(d, off, n)
	if err != nil {
		return nil, err
	}
	var out []string
	for rest := buf[off-from : off-from+n]; len(rest) > 0; {
		row := rest[:min(16, len(rest))]
		rest = rest[len(row):]
		out = append(out, strings.TrimSpace(fmt.Sprintf("% x", row)))
	}
	return out, nil
}

func poke(d Device, off int64, text string) error {
	bytes, err := hex.DecodeString(text)
	if err != nil {
		return err
	}
	buf, from, err := window(d, off, int64(len(bytes)))
	if err != nil {
		return err
	}
	copy(buf[off-from:], bytes)
	return d.Write(buf, from)
}
