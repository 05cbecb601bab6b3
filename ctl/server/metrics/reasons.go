package metrics

import "udm/ctl"

// reasons are what devices, disks and operations say about themselves.
type reasons struct{ devices, disks, operations map[string]string }

func reasonsOf(seen Seen) reasons {
	r := reasons{make(map[string]string), make(map[string]string), make(map[string]string)}
	for _, d := range seen.Devices {
		r.devices[Name(d.Name)] = d.Waiting
		for _, dep := range d.Deps {
			if dep.Report != nil {
				r.disks[Name(dep.Source)] = dep.Report.Why
			}
		}
	}
	for _, op := range seen.Operations {
		r.operations[op.ID] = op.Problem
	}
	return r
}

// of returns what is known about the cause of a problem.
func (r reasons) of(p ctl.Problem) string {
	switch p.Alert {
	case "UdmTableMissing":
		return r.devices[p.Labels["device"]]
	case "UdmDiskLost":
		return r.disks[p.Labels["disk"]]
	case "UdmPathFailed":
		return r.disks[p.Labels["path"]]
	case "UdmOperationWaits":
		return r.operations[p.Labels["id"]]
	}
	return ""
}
