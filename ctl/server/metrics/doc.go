// Package metrics tells Prometheus, or whoever reads its formats, how a daemon is:
//
//	/metrics   the text of Prometheus or of OpenMetrics, whichever is asked for
//	/healthz   200 while the process answers
//	/readyz    200 when the devices are restored, else 503
//
// Everything is asked of a [ctl.Service] when somebody looks and nothing is kept, so a
// device that is gone is gone from the text. Devices count their I/O from the first look
// on.
//
// # Cardinality
//
// Labels are names of devices, disks, front ends and directories, and words of fixed
// lists; there is none that grows with time. A device has at most 35 lines while it is
// only read and written, so that 5,000 of them are less than 20 MB. Families about
// devices are put together by hand: a registry would check and sort each line at every
// look.
//
// # Names
//
// The variables of type [metric] are the whole list of what udm itself tells;
// docs/operating.md has it for people, and a test compares the two.
package metrics
