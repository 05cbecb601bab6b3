//go:build linux

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A load writes and reads parts of its disk, which is behind what the machine boots from.
const (
	blockLen  = 4096
	firstByte = 64 << 20
	blocks    = 2048
	users     = 4
	maxRun    = 8  // blocks of a request
	slots     = 16 // buffers of a user
)

// load is verified I/O of several users, each to its own blocks.
type load struct {
	f     *os.File
	wg    sync.WaitGroup
	over  atomic.Bool
	users [users]*user

	mu    sync.Mutex
	cond  sync.Cond // mu; steps or err changed
	steps int       // guarded by mu
	err   error     // guarded by mu
}

// user is a thread that does one request after the other. A block says which it is and how
// often it was written. What a read has put into a buffer is looked at again when the buffer
// is used the next time: memory that a migration has forgotten shows then.
type user struct {
	l       *load
	first   int
	written [blocks / users]uint32 // how often
	slots   [slots]slot
	turn    int
	rng     *rand.Rand
}

// slot is a buffer, and what must be in it.
type slot struct {
	mem   []byte
	first int
	want  []uint32
}

func startLoad(path string) (*load, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return nil, err
	}
	l := &load{f: f}
	l.cond.L = &l.mu
	for i := range l.users {
		mem, err := unix.Mmap(-1, 0, slots*maxRun*blockLen, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			return nil, err
		}
		u := &user{l: l, first: i * blocks / users, rng: rand.New(rand.NewPCG(uint64(i), 1))}
		for j := range u.slots {
			u.slots[j].mem = mem[j*maxRun*blockLen:][:maxRun*blockLen]
		}
		if err := u.prepare(); err != nil {
			return nil, err
		}
		l.users[i] = u
	}
	for _, u := range l.users {
		l.wg.Go(u.run)
	}
	return l, nil
}

// prepare takes what an earlier load has left for the first versions.
func (u *user) prepare() error {
	p := u.slots[0].mem
	for at := 0; at < len(u.written); at += maxRun {
		if _, err := u.l.f.ReadAt(p, u.offset(at)); err != nil {
			return err
		}
		for i := range maxRun {
			u.written[at+i] = versionOf(p[i*blockLen:])
		}
		if err := u.compare(p, at, u.written[at:at+maxRun]); err != nil {
			return fmt.Errorf("left from before: %w", err)
		}
	}
	return nil
}

func (u *user) offset(block int) int64 { return firstByte + int64(u.first+block)*blockLen }

func (u *user) run() {
	for !u.l.over.Load() {
		err := u.step()
		u.l.mu.Lock()
		u.l.steps++
		u.l.err = errors.Join(u.l.err, err)
		u.l.cond.Broadcast()
		u.l.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (u *user) step() error {
	n := 1 + u.rng.IntN(maxRun)
	at := u.rng.IntN(len(u.written) - n + 1)
	s := &u.slots[u.turn%slots]
	u.turn++
	if err := u.compare(s.mem, s.first, s.want); err != nil {
		return fmt.Errorf("in memory: %w", err)
	}
	s.want = nil
	p := s.mem[:n*blockLen]
	switch u.rng.IntN(8) {
	case 0:
		return u.l.f.Sync()
	case 1, 2, 3:
		for i := range n {
			u.written[at+i]++
			fill(p[i*blockLen:], u.first+at+i, u.written[at+i])
		}
		_, err := u.l.f.WriteAt(p, u.offset(at))
		return err
	}
	if _, err := u.l.f.ReadAt(p, u.offset(at)); err != nil {
		return err
	}
	s.first, s.want = at, append(s.want, u.written[at:at+n]...)
	return u.compare(p, at, s.want)
}

// fill makes the content of a block: its number and version in each word.
func fill(p []byte, block int, version uint32) {
	for i := 0; i < blockLen; i += 8 {
		binary.LittleEndian.PutUint64(p[i:], word(i, block, version))
	}
}

// word is one word of a block; a block that was never written is of zeroes.
func word(i, block int, version uint32) uint64 {
	if version == 0 {
		return 0
	}
	return uint64(version)<<32 | uint64(block)<<12 | uint64(i)
}

func versionOf(p []byte) uint32 { return binary.LittleEndian.Uint32(p[4:]) }

// compare compares blocks with what was written last.
func (u *user) compare(p []byte, at int, want []uint32) error {
	for i, v := range want {
		for j := 0; j < blockLen; j += 8 {
			got := binary.LittleEndian.Uint64(p[i*blockLen+j:])
			if w := word(j, u.first+at+i, v); got != w {
				return fmt.Errorf("block %d, byte %d: %#x instead of %#x", u.first+at+i, j, got, w)
			}
		}
	}
	return nil
}

// more waits for n more requests.
func (l *load) more(n int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n += l.steps; l.steps < n && l.err == nil; {
		l.cond.Wait()
	}
	return l.err
}

// stop ends the load, and returns the sum of what must be on the disk, which it has compared.
func (l *load) stop() (string, error) {
	l.over.Store(true)
	l.wg.Wait()
	defer l.f.Close()
	if l.err != nil {
		return "", l.err
	}
	h := sha256.New()
	for _, u := range l.users {
		p := u.slots[0].mem
		for at := 0; at < len(u.written); at += maxRun {
			if _, err := l.f.ReadAt(p, u.offset(at)); err != nil {
				return "", err
			}
			if err := u.compare(p, at, u.written[at:at+maxRun]); err != nil {
				return "", fmt.Errorf("at the end: %w", err)
			}
			h.Write(p)
		}
	}
	return short(h.Sum(nil)), l.f.Sync()
}

// sumOf is the sum of what is on a disk where loads write.
func sumOf(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	p := make([]byte, blocks*blockLen)
	if _, err := f.ReadAt(p, firstByte); err != nil {
		return "", err
	}
	if bytes.Count(p, []byte{0}) == len(p) {
		return "empty", nil
	}
	sum := sha256.Sum256(p)
	return short(sum[:]), nil
}

func short(sum []byte) string { return fmt.Sprintf("%x", sum[:8]) }
