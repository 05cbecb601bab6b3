package metrics

import (
	"runtime"

	"udm/blk"
	"udm/ctl"
	"udm/volume"
)

var (
	buildInfo = gauge("udm_build_info", "Always 1, with the versions of udm, of the device-mapper interface and of Go.")
	restoring = gauge("udm_restoring", "1 while devices are being restored after a start.")

	diskConnected   = gauge("udm_disk_connected", "1 while the remote disk is connected.")
	diskConnections = gauge("udm_disk_connections", "Number of established connections to the remote disk.")
	diskReconnects  = counter("udm_disk_reconnects_total", "Number of reconnections to the remote disk.")
	diskInFlight    = gauge("udm_disk_in_flight", "I/O of the remote disk that is not completed.")
	diskUnflushed   = gauge("udm_disk_unflushed_bytes", "Bytes acknowledged by the remote disk and not yet covered by a flush.")

	operations     = gauge("udm_operations", "Number of operations on volumes in progress.")
	operationDone  = gauge("udm_operation_done_bytes", "Bytes completed by the operation's long step.")
	operationTotal = gauge("udm_operation_bytes", "Total bytes of the operation's long step.")
	operationWaits = gauge("udm_operation_waits", "1 while the operation waits for a retry.")

	frontEndExports = gauge("udm_front_end_exports", "Number of devices exported by the front end.")
	frontEndClients = gauge("udm_front_end_clients", "Number of clients of the front end.")
	frontEndStalled = gauge("udm_front_end_stalled_clients", "Number of clients of the front end that have not taken their answers for a minute.")

	hostFree = gauge("udm_host_free_bytes", "Free space on the file system of a directory with disks, stores or pools.")
	hostSize = gauge("udm_host_size_bytes", "Size of that file system.")
)

func (p *page) version(v ctl.Version) {
	p.set(buildInfo, label("driver", v.Driver, "go", runtime.Version(), "version", v.Program), 1)
	p.is(restoring, nil, v.Restoring != nil)
}

// disk adds the metrics of a remote disk.
func (p *page) disk(name string, r *blk.Report) {
	ls := label("disk", deviceLabel(name))
	p.is(diskConnected, ls, r.State == "connected")
	p.set(diskConnections, ls, float64(r.Connections))
	p.set(diskReconnects, ls, float64(r.Reconnects))
	p.set(diskInFlight, ls, float64(r.UnderWay))
	p.set(diskUnflushed, ls, float64(r.Unflushed))
}

func (p *page) operations(ops []volume.Operation) {
	p.set(operations, nil, float64(len(ops)))
	for _, op := range ops {
		ls := label("device", deviceLabel(op.Objects[0]), "id", op.ID, "kind", op.Kind)
		p.is(operationWaits, ls, op.Problem != "")
		if op.Total > 0 {
			p.set(operationDone, ls, float64(op.Done))
			p.set(operationTotal, ls, float64(op.Total))
		}
	}
}

// stalledFor is the number of seconds after which a client counts as stalled.
const stalledFor = 60

func (p *page) frontEnd(f ctl.FrontEnd) {
	ls := label("front_end", f.Name)
	p.set(frontEndExports, ls, float64(f.Exports))
	p.set(frontEndClients, ls, float64(len(f.Clients)))
	stalled := 0
	for _, c := range f.Clients {
		if c.Stalled >= stalledFor {
			stalled++
		}
	}
	p.set(frontEndStalled, ls, float64(stalled))
}
