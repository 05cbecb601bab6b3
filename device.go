package udm

import (
	"errors"
	"slices"
	"strings"

	"udm/blk"
	"udm/blk/checkdev"
	"udm/dm"
)

// Device is a device of a stack: an io.ReaderAt and io.WriterAt of any offset and
// length, and a [blk.Device] for bios of whole blocks.
type Device struct {
	*checkdev.Device // Submit, Limits, Extents, String
	file             *blk.File
	stack            *Stack
	dm               *dm.Device
	owns             bool // Close closes the stack
}

func newDevice(s *Stack, d *dm.Device, h blk.Device) *Device {
	c := checkdev.New(h, checkdev.Options{})
	return &Device{Device: c, file: blk.NewFile(s.env, c), stack: s, dm: d}
}

// Stack is the stack that the device belongs to.
func (d *Device) Stack() *Stack { return d.stack }

// Mapped is the device in the device mapper of the stack.
func (d *Device) Mapped() *dm.Device { return d.dm }

// Name is the device's name.
func (d *Device) Name() string { return d.dm.Name() }

// Size is the device's size in bytes.
func (d *Device) Size() int64 { return d.file.Size() }

// ReadAt reads at any offset; io.EOF at the end.
func (d *Device) ReadAt(p []byte, off int64) (int, error) { return d.file.ReadAt(p, off) }

// WriteAt writes at any offset; io.ErrShortWrite at the end, as the device does
// not grow.
func (d *Device) WriteAt(p []byte, off int64) (int, error) { return d.file.WriteAt(p, off) }

// Sync makes durable what was written before.
func (d *Device) Sync() error { return d.file.Sync() }

// Message sends words to the target at the device's beginning, such as
// "create_thin 0" to a pool, and returns its answer.
func (d *Device) Message(words string) (string, error) { return d.dm.Message(0, words) }

// Status is what dmsetup status prints: a line for each target.
func (d *Device) Status() string { return lines(d.dm.Lines(dm.Info, false, 0)) }

// Table is what dmsetup table prints.
func (d *Device) Table() string { return lines(d.dm.Lines(dm.TableText, false, 0)) }

func lines(specs []dm.Spec) string {
	return strings.TrimSuffix(Table(specs...), "\n")
}

// Close waits for what is under way and removes the device: at once, or when no
// other device stands on it and no client of a server has it open any more. A
// device from [Open] takes its stack with it. Closing twice does nothing.
func (d *Device) Close() error {
	if d.owns {
		return d.stack.Close()
	}
	if !d.stack.forget(d) {
		return nil
	}
	err := d.Device.Close()
	_, gone := d.dm.Remove(true)
	return errors.Join(err, gone)
}

// forget takes d out of the list, and reports whether it was there.
func (s *Stack) forget(d *Device) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.devices, d)
	if i < 0 || s.closed {
		return false
	}
	s.devices = slices.Delete(slices.Clone(s.devices), i, i+1)
	return true
}
