package web

import (
	"net/http"
	"slices"
	"strings"

	"udm/ctl"
	"udm/ctl/server/metrics"
	"udm/volume"
)

// device is a mapped device as the page draws it. Devices and disks are named by their
// places in the lists of the state.
type device struct {
	Name   string   `json:"name"`
	Kind   string   `json:"kind,omitempty"` // of the object; "": it was made for another one
	State  string   `json:"state"`
	Maps   []string `json:"maps,omitempty"`  // target types
	On     []int    `json:"on,omitempty"`    // devices that it uses
	Disks  []int    `json:"disks,omitempty"` // disks that it uses
	Base   string   `json:"base,omitempty"`
	Pool   string   `json:"pool,omitempty"`
	Store  string   `json:"store,omitempty"`
	Number string   `json:"number"`
	Users  string   `json:"users,omitempty"`
}

// disk is a disk that devices use.
type disk struct {
	Name  string `json:"name"`
	Users int    `json:"users"` // number of devices
}

// graph is what stands on what.
type graph struct {
	index map[string]int // devices by name
	disks []disk
	disk  map[ctl.Number]int
}

func newGraph(ds []ctl.Device) *graph {
	g := &graph{index: make(map[string]int), disks: []disk{}, disk: make(map[ctl.Number]int)}
	for i, d := range ds {
		g.index[d.Name] = i
	}
	return g
}

// devices returns all devices and collects their disks.
func (g *graph) devices(ds []ctl.Device, objects []volume.Object) []device {
	byName := make(map[string]volume.Object)
	for _, o := range objects {
		byName[o.Name] = o
	}
	all := make([]device, 0, len(ds))
	for _, d := range ds {
		o := byName[d.Name]
		one := device{Name: metrics.Name(d.Name), Kind: string(o.Kind), State: d.StateText(), Base: metrics.Name(o.Base), Pool: metrics.Name(o.Pool),
			Store: metrics.Name(o.Store), Number: d.Number.String()}
		for _, l := range d.Table {
			if !slices.Contains(one.Maps, l.Target) {
				one.Maps = append(one.Maps, l.Target)
			}
		}
		for _, dep := range slices.Backward(d.Deps) {
			if i, ok := g.index[dep.Map]; ok && dep.Map != "" {
				one.On = append(one.On, i)
			} else if dep.Map == "" {
				one.Disks = append(one.Disks, g.diskOf(dep))
			}
		}
		all = append(all, one)
	}
	return all
}

func (g *graph) diskOf(dep ctl.Dep) int {
	i, ok := g.disk[dep.Number]
	if !ok {
		i = len(g.disks)
		name := dep.Source
		if name == "" {
			name = dep.Name
		}
		g.disk[dep.Number] = i
		g.disks = append(g.disks, disk{Name: metrics.Name(name)})
	}
	g.disks[i].Users++
	return i
}

// serveDevice answers GET /api/device: what the page shows of the selected device only.
func serveDevice(w http.ResponseWriter, r *http.Request, s ctl.Service) {
	q := ctl.Query{Ref: ctl.Ref{Name: r.URL.Query().Get("name")}, With: []ctl.With{ctl.WithTable, ctl.WithStatus}, Noflush: true}
	d, err := s.Device(r.Context(), q)
	if err != nil {
		refuse(w, http.StatusNotFound, err.Error())
		return
	}
	reply(w, http.StatusOK, map[string][]string{"table": lines(d.Table), "status": lines(d.Status)})
}

// mostLines is how many lines of a table are shown.
const mostLines = 50

func lines(ls []ctl.Line) []string {
	text := make([]string, 0, min(len(ls), mostLines))
	for _, l := range ls[:min(len(ls), mostLines)] {
		text = append(text, strings.TrimSpace(l.String()))
	}
	return text
}
