package web

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"udm/ctl"
	"udm/volume"
)

// operation is what the page may ask for.
type operation struct {
	Name string `json:"name"`
	New  string `json:"new,omitempty"`  // the name of a snapshot
	Size uint64 `json:"size,omitempty"` // bytes
}

// operations are those of the page. Nothing shrinks: what it would cut off, the page
// cannot tell.
var operations = map[string]func(context.Context, ctl.Service, operation) error{
	"snapshot": func(ctx context.Context, s ctl.Service, o operation) error {
		return s.Snapshot(ctx, volume.SnapshotSpec{Of: o.Name, Names: []string{o.New}})
	},
	"reset": func(ctx context.Context, s ctl.Service, o operation) error {
		return s.Reset(ctx, ctl.Objects{Name: o.Name})
	},
	"remove": func(ctx context.Context, s ctl.Service, o operation) error {
		return s.RemoveObject(ctx, volume.RemoveSpec{Name: o.Name})
	},
	"resize": func(ctx context.Context, s ctl.Service, o operation) error {
		return s.Resize(ctx, volume.ResizeSpec{Name: o.Name, Size: o.Size})
	},
}

// maxBody is the maximum length of a request in bytes.
const maxBody = 16 << 10

// addOperations adds POST /api/do/NAME for each operation.
func addOperations(mux *http.ServeMux, c Config) {
	if !c.Operations {
		mux.HandleFunc("POST /api/do/", func(w http.ResponseWriter, _ *http.Request) {
			refuse(w, http.StatusForbidden, "this page only shows; udm daemon --web-operations allows operations")
		})
		return
	}
	for name, do := range operations {
		mux.HandleFunc("POST /api/do/"+name, func(w http.ResponseWriter, r *http.Request) {
			var o operation
			if err := decode(w, r, &o); err != nil {
				refuse(w, http.StatusBadRequest, err.Error())
				return
			}
			err := do(r.Context(), c.Service, o)
			if err != nil {
				refuse(w, http.StatusConflict, err.Error())
				return
			}
			c.Log.Info("done for the page", "operation", name, "device", o.Name)
			reply(w, http.StatusOK, struct{}{})
		})
	}
}

// decode reads a request, which must be JSON: forms of other sites cannot send that.
func decode(w http.ResponseWriter, r *http.Request, o *operation) error {
	if t := r.Header.Get("Content-Type"); t != "application/json" {
		return fmt.Errorf("the request is %q; send application/json", t)
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	return d.Decode(o)
}
