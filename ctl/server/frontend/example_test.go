package frontend_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"strings"
	"sync"

	"udm/blk"
	"udm/blk/memdev"
	"udm/ctl"
	"udm/ctl/server/frontend"
	"udm/env"
	"udm/export"
)

// hello is a front end: it answers each line, the name of an export, with the first
// five bytes of the device.
type hello struct {
	exports  export.Exports
	listener net.Listener
	clients  sync.WaitGroup // the accepting goroutine, and one for each client
}

func (h *hello) Name() string { return "hello" }

func (h *hello) Start(fail func(error)) (err error) {
	if h.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return err
	}
	h.clients.Go(func() {
		for {
			c, err := h.listener.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				fail(err)
				return
			}
			h.clients.Go(func() { h.serve(c) })
		}
	})
	return nil
}

func (h *hello) serve(c net.Conn) {
	defer c.Close()
	for lines := bufio.NewScanner(c); lines.Scan(); {
		fmt.Fprintln(c, h.answer(lines.Text()))
	}
}

// answer opens an export for as long as it is used, and submits bios to its device.
func (h *hello) answer(name string) string {
	x, err := h.exports.Open(name)
	if err != nil {
		return err.Error()
	}
	defer x.Done()
	sector := make([]byte, blk.SectorSize)
	if err := blk.ReadSectors(env.Real(), x.Device, sector, 0); err != nil {
		return err.Error()
	}
	return string(sector[:5])
}

func (h *hello) Status() ctl.FrontEnd {
	return ctl.FrontEnd{Name: h.Name(), Addresses: []string{h.listener.Addr().String()}, Exports: len(h.exports.List())}
}

// Drain waits for the clients. A real front end cuts them off when ctx ends.
func (h *hello) Drain(context.Context) error {
	err := h.listener.Close()
	h.clients.Wait()
	return err
}

func (h *hello) Close() error { return h.Drain(context.Background()) }

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// A front end of one's own. In the daemon it is an entry of the list that
// package ctl/server makes.
func ExampleServer() {
	disk := memdev.New(8)
	check(blk.WriteSectors(env.Real(), disk, append([]byte("bytes"), make([]byte, 507)...), 0, 0))
	var list frontend.List
	check(list.Start(func(err error) { log.Print(err) }, &hello{exports: export.Fixed{{Info: export.Info{Name: "disk"}, Device: export.Check(disk)}}}))
	c, err := net.Dial("tcp", list.Status()[0].Addresses[0])
	check(err)
	fmt.Fprintln(c, "disk")
	fmt.Fprintln(c, "nothing")
	lines := bufio.NewReader(c)
	for range 2 {
		line, err := lines.ReadString('\n')
		check(err)
		fmt.Println(strings.TrimSpace(line))
	}
	check(c.Close())
	check(list.Drain(context.Background()))
	// Output:
	// bytes
	// file does not exist
}
