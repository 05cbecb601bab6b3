//go:build linux

// Command steady uses files while the disks below them are served by one daemon after the other. It writes
// and reads blocks of a file in each folder, past the kernel's cache, and verifies what it reads.
//
//	steady DIR…
//
// For each line of its input every file is used some more; then a line is written that begins with "ok" and
// tells the longest time that an I/O took, in milliseconds. At the end of the input all blocks are read once
// more. The first error ends the program.
package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	blockSize = 4096
	blocks    = 512 // of a file
	more      = 20  // I/Os of each user for a line of the input
	users     = 2   // of a file, each with half of its blocks
)

func main() {
	if err := run(os.Args[1:], os.Stdin); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

func run(dirs []string, in io.Reader) error {
	l := &load{rounds: make(chan struct{})}
	for i, dir := range dirs {
		if err := l.add(filepath.Join(dir, "steady"), uint64(i)); err != nil {
			return err
		}
	}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		if err := l.more(); err != nil {
			return err
		}
		fmt.Printf("ok %d\n", time.Duration(l.longest.Swap(0)).Milliseconds())
	}
	l.over.Store(true)
	l.running.Wait()
	if err := l.failed(); err != nil {
		return err
	}
	for _, u := range l.users {
		for b := range blocks / users {
			if err := u.read(b); err != nil {
				return err
			}
		}
	}
	fmt.Printf("ok, %d I/Os\n", l.count.Load())
	return nil
}

// load is what all users have in common.
type load struct {
	users   []*user
	running sync.WaitGroup
	over    atomic.Bool
	longest atomic.Int64 // nanoseconds
	count   atomic.Int64

	mu     sync.Mutex
	rounds chan struct{} // guarded by mu; closed, and made anew, when a user has done an I/O
	err    error         // guarded by mu
}

// add adds the users of a new file.
func (l *load) add(path string, seed uint64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_DIRECT, 0o600)
	if err == nil {
		_, err = f.WriteAt(aligned(blocks*blockSize), 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return err
	}
	for i := range users {
		u := &user{l: l, f: f, first: i * blocks / users, chance: rand.New(rand.NewPCG(seed, uint64(i))), p: aligned(blockSize)}
		l.users = append(l.users, u)
		l.running.Go(u.run)
	}
	return nil
}

// more waits until each user has done some more I/Os.
func (l *load) more() error {
	want := make([]int64, len(l.users))
	for i, u := range l.users {
		want[i] = u.done.Load() + more
	}
	for {
		l.mu.Lock()
		changed, err := l.rounds, l.err
		l.mu.Unlock()
		if err != nil {
			return err
		}
		behind := false
		for i, u := range l.users {
			behind = behind || u.done.Load() < want[i]
		}
		if !behind {
			return nil
		}
		<-changed
	}
}

func (l *load) failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// after counts an I/O.
func (l *load) after(began time.Time, err error) {
	took := int64(time.Since(began))
	for was := l.longest.Load(); took > was && !l.longest.CompareAndSwap(was, took); {
		was = l.longest.Load()
	}
	l.count.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = errors.Join(l.err, err)
	close(l.rounds)
	l.rounds = make(chan struct{})
}

// user uses a part of a file.
type user struct {
	l       *load
	f       *os.File
	first   int // block
	chance  *rand.Rand
	p       []byte
	written [blocks / users]uint64
	writes  uint64
	done    atomic.Int64
}

func (u *user) run() {
	for !u.l.over.Load() {
		began := time.Now()
		err := u.step()
		u.done.Add(1)
		u.l.after(began, err)
		if err != nil {
			return
		}
	}
}

func (u *user) step() error {
	block := u.chance.IntN(len(u.written))
	switch u.chance.IntN(8) {
	case 0:
		return u.f.Sync()
	case 1, 2, 3:
		return u.read(block)
	}
	u.writes++
	fill(u.p, uint64(block), u.writes)
	if _, err := u.f.WriteAt(u.p, u.at(block)); err != nil {
		return err
	}
	u.written[block] = u.writes
	return nil
}

func (u *user) at(block int) int64 { return int64(u.first+block) * blockSize }

func (u *user) read(block int) error {
	if _, err := u.f.ReadAt(u.p, u.at(block)); err != nil {
		return err
	}
	want := make([]byte, blockSize)
	fill(want, uint64(block), u.written[block])
	if !bytes.Equal(u.p, want) {
		return fmt.Errorf("%s: block %d has %x, not write %d", u.f.Name(), u.first+block, u.p[:16], u.written[block])
	}
	return nil
}

// fill makes the content of a block after a write; 0: none.
func fill(p []byte, block, write uint64) {
	clear(p)
	for i := 0; i < len(p) && write > 0; i += 16 {
		binary.LittleEndian.PutUint64(p[i:], block)
		binary.LittleEndian.PutUint64(p[i+8:], write)
	}
}

// aligned returns n bytes that direct I/O takes.
func aligned(n int) []byte {
	p := make([]byte, n+blockSize)
	skip := -int(uintptr(unsafe.Pointer(&p[0]))) & (blockSize - 1)
	return p[skip:][:n:n]
}
