//go:build linux

// Command servers uses block devices of the ublk driver without a pause while one process after the other
// serves them. They have no content: it is about requests that the driver might lose.
//
//	servers ROUNDS
//
// In each round one process leaves, and another is killed; the next one recovers the devices. It goes on when
// each user has done some I/O with that one, so a lost request is a program that does not end.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"udm/blk"
	"udm/blk/nulldev"
	"udm/export"
	"udm/export/ublk"
)

const (
	devices = 4
	users   = 2 // of a device
	more    = 4 // I/Os of each user in a round
	size    = 64 << 10
	blocks  = 256 // of that size, of a device
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	c, err := ublk.Open()
	if err != nil {
		return err
	}
	defer c.Close()
	switch len(args) {
	case 1:
		rounds, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		return use(c, rounds)
	case 2:
		return serve(c, args[1])
	}
	return errors.New("usage: servers ROUNDS")
}

func use(c *ublk.Control, rounds int) error {
	l := newDisk().Limits()
	for id := range uint32(devices) {
		if _, err := c.Add(ublk.Info{ID: id, Queues: 4, Depth: 64, MaxBytes: size}, &l); err != nil {
			return err
		}
	}
	s, err := startServer("start")
	if err != nil {
		return err
	}
	load, err := newLoad()
	for n := 0; err == nil && n < 2*rounds; n++ {
		load.more()
		s.end(n%2 == 1)
		s, err = startServer("recover")
	}
	if err == nil {
		load.more()
	}
	return err
}

// newDisk returns a disk whose content outlives a process.
func newDisk() *nulldev.Device {
	return nulldev.New(blocks*size/blk.SectorSize, nulldev.Tune(func(l *blk.Limits) { l.ProcessMemory = false }))
}

// server is a process that serves all devices.
type server struct {
	cmd *exec.Cmd
	in  *os.File // it leaves at the end of its input
}

// startServer returns when the new process serves all devices.
func startServer(how string) (*server, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe", "serve", how)
	cmd.Stdin, cmd.Stderr = r, os.Stdout
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	lines := bufio.NewScanner(out)
	for range devices {
		if err == nil && !lines.Scan() {
			err = errors.Join(errors.New("a server has failed"), cmd.Wait())
		}
	}
	return &server{cmd, w}, err
}

func (s *server) end(kill bool) {
	if kill {
		_ = s.cmd.Process.Kill()
	}
	s.in.Close()
	_ = s.cmd.Wait() // it is killed, or fails in the next process
}

// serve serves all devices, and writes a line for each that it serves.
func serve(c *ublk.Control, how string) error {
	failed := make(chan error, devices)
	var mu sync.Mutex
	servers := make(map[uint32]*ublk.Server)
	for id := range uint32(devices) {
		go func() {
			s, err := serveOne(c, id, how)
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				failed <- err
				return
			}
			mu.Lock()
			servers[id] = s
			mu.Unlock()
			fmt.Println("serving", id)
		}()
	}
	ended := make(chan bool)
	go func() {
		bufio.NewScanner(os.Stdin).Scan()
		close(ended)
	}()
	select {
	case err := <-failed:
		return err
	case <-ended:
	}
	mu.Lock()
	defer mu.Unlock()
	var leaving sync.WaitGroup
	for _, s := range servers {
		leaving.Go(s.Leave)
	}
	leaving.Wait()
	return nil
}

// serveOne serves a device. Like a daemon, it tries again if the driver takes the commands back.
func serveOne(c *ublk.Control, id uint32, how string) (*ublk.Server, error) {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	for {
		if how == "recover" {
			if err := c.Recover(id, time.Minute); err != nil {
				return nil, err
			}
		}
		s, err := ublk.Serve(c, id, &export.Export{Device: export.Check(newDisk())}, log)
		if err != nil {
			return nil, err
		}
		if how == "recover" {
			err = c.Recovered(id, os.Getpid())
		} else {
			err = c.Start(id, os.Getpid())
		}
		s.Up()
		select {
		case <-s.Ended():
			how = "recover"
		default:
			return s, err
		}
	}
}

// load is users that write.
type load struct {
	mu   sync.Mutex
	done [devices * users]int // guarded by mu; I/Os of each user
	some *sync.Cond
}

func newLoad() (*load, error) {
	l := new(load)
	l.some = sync.NewCond(&l.mu)
	for i := range l.done {
		f, err := os.OpenFile(fmt.Sprint("/dev/ublkb", i/users), os.O_RDWR|unix.O_DIRECT, 0)
		if err != nil {
			return nil, err
		}
		p, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			return nil, err
		}
		go l.write(i, f, p)
	}
	return l, nil
}

func (l *load) write(i int, f *os.File, p []byte) {
	for n := int64(0); ; n++ {
		if _, err := f.WriteAt(p, n%blocks*size); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		l.mu.Lock()
		l.done[i]++
		l.some.Broadcast()
		l.mu.Unlock()
	}
}

// more waits until each user has done more I/O.
func (l *load) more() {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.done
	for i := range l.done {
		for l.done[i] < before[i]+more {
			l.some.Wait()
		}
	}
}
