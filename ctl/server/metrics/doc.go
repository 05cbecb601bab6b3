// Package metrics exports the state of a daemon to Prometheus:
//
//	/metrics   metrics in the text format of Prometheus or OpenMetrics, as requested
//	/healthz   200 while the process answers
//	/readyz    200 once all devices are restored, otherwise 503
//
// Each scrape queries a [ctl.Service] and keeps nothing, so a removed device disappears
// from the metrics. Devices count their I/O from the first scrape on.
//
// # Cardinality
//
// Label values are names of devices, disks, front ends and directories, or come from fixed
// lists, so the number of series does not grow with time. A device that is only read and
// written has at most 35 lines; 5,000 such devices take less than 20 MB. The package builds
// the metric families of devices itself, because a registry would validate and sort each
// line in every scrape.
//
// # Names
//
// The variables of type [metric] define all metrics of udm itself. docs/operating.md
// documents them, and a test compares the two.
package metrics
