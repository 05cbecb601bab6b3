package dm

import "log/slog"

// SetLog makes targets report to l what Linux writes to its log, such as changes of a
// pool's mode and lost snapshots. Without it the reports are discarded. It must be
// called before the first device is made. Many goroutines use l, among them those that
// submit bios.
func (c *Control) SetLog(l *slog.Logger) { c.log = l }

// Log returns the logger for what the target's users should know. A target must not
// hold a lock while it uses the logger.
func (t *Target) Log() *slog.Logger {
	d := t.Device()
	return d.control.log.With("device", d.Name())
}
