package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"syscall"

	"udm/ctl"
	"udm/dm"
)

// maxBody is the longest request, in bytes: a table of some 100,000 lines.
const maxBody = 16 << 20

// Handler answers the control protocol.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	handle(s, mux, "version", s.version)
	handle(s, mux, "targets", s.targets)
	handle(s, mux, "params", s.params)
	handle(s, mux, "set_param", s.setParam)
	handle(s, mux, "list", s.list)
	handle(s, mux, "device", s.device)
	handle(s, mux, "create", s.create)
	handle(s, mux, "load", s.load)
	handle(s, mux, "clear", s.clear)
	handle(s, mux, "suspend", s.suspend)
	handle(s, mux, "resume", s.resume)
	handle(s, mux, "remove", s.remove)
	handle(s, mux, "remove_all", s.removeAll)
	handle(s, mux, "rename", s.rename)
	handle(s, mux, "message", s.message)
	handle(s, mux, "wait", s.wait)
	handle(s, mux, "mount", s.files.mount)
	handle(s, mux, "unmount", s.files.unmount)
	handle(s, mux, "mounts", s.files.listMounts)
	handle(s, mux, "attach", s.files.attach)
	handle(s, mux, "detach", s.files.detach)
	handle(s, mux, "attachments", s.files.listAttached)
	mux.HandleFunc("/", unknown)
	return mux
}

func unknown(w http.ResponseWriter, r *http.Request) {
	reply(w, http.StatusNotFound, &ctl.Error{Errno: "ENOTTY", Reason: fmt.Sprintf("%s %s is no command; POST to /v1/COMMAND", r.Method, r.URL.Path)})
}

// handle makes f the command of a name: it gets the decoded body of a POST, and
// what it returns is the answer.
func handle[In, Out any](s *Server, mux *http.ServeMux, name string, f func(context.Context, In) (Out, error)) {
	mux.HandleFunc("POST /v1/"+name, func(w http.ResponseWriter, r *http.Request) {
		var in In
		if err := decode(http.MaxBytesReader(w, r.Body, maxBody), &in); err != nil {
			reply(w, http.StatusBadRequest, &ctl.Error{Errno: "EINVAL", Reason: "malformed request: " + err.Error()})
			return
		}
		out, err := f(r.Context(), in)
		if err != nil {
			s.log.Debug("a command failed", "command", name, "reason", err)
			reply(w, httpStatus(err), ctl.NewError(err))
			return
		}
		reply(w, http.StatusOK, out)
	})
}

// decode reads one JSON object, and an empty body as an empty one.
func decode(r io.Reader, in any) error {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	if err := d.Decode(in); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// The client is gone if this fails; there is nobody to tell.
	_ = json.NewEncoder(w).Encode(v)
}

func httpStatus(err error) int {
	switch dm.ErrnoOf(err) {
	case syscall.ENXIO:
		return http.StatusNotFound
	case syscall.EBUSY:
		return http.StatusConflict
	case syscall.EACCES, syscall.EPERM:
		return http.StatusForbidden
	}
	return http.StatusBadRequest
}
