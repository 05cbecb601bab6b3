//go:build unix

package handover

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"time"
)

// channel is the socket between both processes. A message is its length in four bytes
// and JSON; files follow a message, each batch with one more byte.
type channel struct{ conn *net.UnixConn }

// Limits of what is sent.
const (
	maxMessage  = 1<<32 - 1
	filesAtOnce = 200 // fewer than SCM_MAX_FD
)

func (c channel) send(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(text) > maxMessage {
		return fmt.Errorf("%d bytes are too many to hand over", len(text))
	}
	_, err = c.conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...))
	return err
}

func (c channel) receive(v any) error {
	var head [4]byte
	if _, err := io.ReadFull(c.conn, head[:]); err != nil {
		return err
	}
	text := make([]byte, binary.BigEndian.Uint32(head[:]))
	if _, err := io.ReadFull(c.conn, text); err != nil {
		return err
	}
	return json.Unmarshal(text, v)
}

func (c channel) limit(d time.Duration) error { return c.conn.SetDeadline(time.Now().Add(d)) }

// sentPart is a part as it is sent; the files follow.
type sentPart struct {
	Name  string
	Value json.RawMessage
	Files int
}

func (c channel) sendBundle(b *Bundle) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var parts []sentPart
	var files []*os.File
	for name, p := range b.parts {
		parts = append(parts, sentPart{name, p.value, len(p.files)})
		files = append(files, p.files...)
	}
	if err := c.send(parts); err != nil {
		return err
	}
	for batch := range slices.Chunk(files, filesAtOnce) {
		if err := c.sendFiles(batch); err != nil {
			return err
		}
	}
	return nil
}

func (c channel) sendFiles(files []*os.File) error {
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	_, _, err := c.conn.WriteMsgUnix([]byte{0}, syscall.UnixRights(fds...), nil)
	return err
}

func (c channel) receiveBundle() (*Bundle, error) {
	var parts []sentPart
	if err := c.receive(&parts); err != nil {
		return nil, err
	}
	n := 0
	for _, p := range parts {
		n += p.Files
	}
	files, err := c.receiveFiles(n)
	if err != nil {
		return nil, err
	}
	b := new(Bundle)
	for _, p := range parts {
		b.put(p.Name, part{p.Value, files[:p.Files]})
		files = files[p.Files:]
	}
	return b, nil
}

func (c channel) receiveFiles(n int) (files []*os.File, err error) {
	control := make([]byte, syscall.CmsgSpace(4*filesAtOnce))
	for len(files) < n {
		_, m, _, _, err := c.conn.ReadMsgUnix(make([]byte, 1), control)
		if err != nil {
			return nil, err
		}
		list, err := syscall.ParseSocketControlMessage(control[:m])
		if err != nil || len(list) != 1 {
			return nil, errors.Join(err, errors.New("descriptors are missing; the limit of open files may be too low: ulimit -n"))
		}
		fds, err := syscall.ParseUnixRights(&list[0])
		if err != nil {
			return nil, err
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "handed over"))
		}
	}
	return files, nil
}
