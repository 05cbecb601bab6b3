package metrics

import (
	"runtime"

	"udm/blk"
	"udm/ctl"
	"udm/volume"
)

var (
	buildInfo = gauge("udm_build_info", "1, with the version of udm, of the device-mapper interface and of Go.")
	restoring = gauge("udm_restoring", "1 while the devices are restored after a start.")

	diskConnected   = gauge("udm_disk_connected", "1 while the remote disk is connected.")
	diskConnections = gauge("udm_disk_connections", "Connections of the remote disk that are up.")
	diskReconnects  = counter("udm_disk_reconnects_total", "How often the remote disk was connected again.")
	diskInFlight    = gauge("udm_disk_in_flight", "I/O of the remote disk that has not ended.")
	diskUnflushed   = gauge("udm_disk_unflushed_bytes", "Bytes that the remote disk has acknowledged and that no flush covers yet.")

	operations     = gauge("udm_operations", "Operations on volumes that are under way.")
	operationDone  = gauge("udm_operation_done_bytes", "What is done of the operation's step that takes long.")
	operationTotal = gauge("udm_operation_bytes", "Size of the operation's step that takes long.")
	operationWaits = gauge("udm_operation_waits", "1 while the operation waits to be tried again.")

	frontEndExports = gauge("udm_front_end_exports", "Devices that the front end offers.")
	frontEndClients = gauge("udm_front_end_clients", "Clients of the front end.")

	hostFree = gauge("udm_host_free_bytes", "Space that is free on the file system of the directory, where disks, stores or pools are.")
	hostSize = gauge("udm_host_size_bytes", "Size of that file system.")
)

func (p *page) version(v ctl.Version) {
	p.set(buildInfo, label("driver", v.Driver, "go", runtime.Version(), "version", v.Program), 1)
	p.is(restoring, nil, v.Restoring != nil)
}

// disk tells of a disk whose data are elsewhere.
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

func (p *page) frontEnd(f ctl.FrontEnd) {
	ls := label("front_end", f.Name)
	p.set(frontEndExports, ls, float64(f.Exports))
	p.set(frontEndClients, ls, float64(len(f.Clients)))
}
