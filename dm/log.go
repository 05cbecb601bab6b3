package dm

import "log/slog"

// SetLog lets targets report to l what Linux would write into its log: changes of
// a pool's mode, snapshots that are lost. It is called before the first device is
// made; without it reports go nowhere. l is used by many goroutines, also by those
// that submit bios.
func (c *Control) SetLog(l *slog.Logger) { c.log = l }

// Log is where the target reports what its users should know. No lock is held
// around its use.
func (t *Target) Log() *slog.Logger {
	d := t.Device()
	return d.control.log.With("device", d.Name())
}
