// Package protocol serves the control protocol: HTTP requests with the commands of
// package ctl, which a service runs.
package protocol

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"syscall"
	"time"

	"udm/ctl"
	"udm/dm"
)

// maxBody is the maximum length of a request in bytes: a table of about 100,000
// lines.
const maxBody = 16 << 20

// Handler returns a handler that runs commands on a service: all, or only some.
func Handler(s ctl.Service, log *slog.Logger, only ...string) http.Handler {
	mux := http.NewServeMux()
	for _, c := range ctl.Commands() {
		if len(only) == 0 || slices.Contains(only, c.Name) {
			mux.Handle("POST /v1/"+c.Name, handler{c, s, log})
		}
	}
	mux.HandleFunc("/", unknown)
	return mux
}

func unknown(w http.ResponseWriter, r *http.Request) {
	reply(w, http.StatusNotFound, &ctl.Error{Errno: "ENOTTY", Reason: fmt.Sprintf("%s %s is not a command; use POST /v1/COMMAND", r.Method, r.URL.Path)})
}

// handler answers one command.
type handler struct {
	command ctl.Command
	service ctl.Service
	log     *slog.Logger
}

// malformed is an error in the request itself.
type malformed struct{ error }

func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer, err := h.command.Do(r.Context(), h.service, func(in any) error {
		var err error
		if u, ok := in.(ctl.Uploading); ok {
			err = begin(w, r, u)
		} else {
			err = decode(http.MaxBytesReader(w, r.Body, maxBody), in)
		}
		if err != nil {
			return malformed{err}
		}
		return nil
	})
	if err != nil {
		h.refuse(w, err)
		return
	}
	switch answer := answer.(type) {
	case ctl.Stream:
		stream(r.Context(), w, answer)
		return
	case ctl.Download:
		h.download(w, answer)
		return
	}
	reply(w, http.StatusOK, answer)
}

// lastWrite is how long a client that does not read may delay the end of a stream.
const lastWrite = time.Second

// stream sends each value, as a line of JSON, at once or with those that follow at once. The
// first bytes tell the client that the command was accepted.
func stream(ctx context.Context, w http.ResponseWriter, values ctl.Stream) {
	c := http.NewResponseController(w)
	defer context.AfterFunc(ctx, func() {
		_ = c.SetWriteDeadline(time.Now().Add(lastWrite)) // some writers of tests have none
	})()
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	lines := json.NewEncoder(w)
	err := c.Flush()
	for v, verr := range values {
		if errors.Join(err, verr) != nil {
			return // the client sees that the answer is incomplete
		}
		err = lines.Encode(v)
		if more, ok := v.(ctl.Continued); !ok || !more.More() {
			err = errors.Join(err, c.Flush())
		}
	}
}

func (h handler) refuse(w http.ResponseWriter, err error) {
	var bad malformed
	if errors.As(err, &bad) {
		reply(w, http.StatusBadRequest, &ctl.Error{Errno: "EINVAL", Reason: "malformed request: " + bad.Error()})
		return
	}
	h.log.Debug("a command failed", "command", h.command.Name, "reason", err)
	reply(w, httpStatus(err), ctl.NewError(err))
}

// decode reads one JSON object; an empty body counts as an empty object.
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
	// This fails if the client is gone; then nobody needs the answer.
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
