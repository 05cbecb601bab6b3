package protocol

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"udm/ctl"
)

// maxLine is the longest request with a stream behind it.
const maxLine = 64 << 10

// begin reads a request that is one line; the rest of the body is the stream.
func begin(w http.ResponseWriter, r *http.Request, u ctl.Uploading) error {
	in, stream := u.Parts()
	body := bufio.NewReaderSize(r.Body, maxLine)
	line, err := body.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return errors.New("the request, the first line, is too long")
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	*stream = upload{body, http.NewResponseController(w)}
	return decode(bytes.NewReader(line), in)
}

// upload is a stream from a client, which can be given up.
type upload struct {
	io.Reader
	c *http.ResponseController
}

func (u upload) SetReadDeadline(t time.Time) error { return u.c.SetReadDeadline(t) }

// download is an answer of bytes, which can be given up.
type download struct {
	w       http.ResponseWriter
	c       *http.ResponseController
	written bool
}

func (d *download) Write(p []byte) (int, error) {
	d.written = d.written || len(p) > 0
	return d.w.Write(p)
}

func (d *download) SetWriteDeadline(t time.Time) error { return d.c.SetWriteDeadline(t) }

// download answers bytes. An error that comes after the first of them is in a trailer.
func (h handler) download(w http.ResponseWriter, answer ctl.Download) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Trailer", ctl.ErrorTrailer)
	d := &download{w: w, c: http.NewResponseController(w)}
	err := answer(d)
	if err == nil {
		return
	}
	if !d.written {
		w.Header().Del("Trailer")
		h.refuse(w, err)
		return
	}
	text, _ := json.Marshal(ctl.NewError(err))
	w.Header().Set(ctl.ErrorTrailer, string(text))
}
