package main

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/xts"

	"udm/blk"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
	"udm/targets/crypt/skcipher"
	"udm/targets/verity/hashtree"
	"udm/targets/verity/veritytools"
)

// Disks at rest: crypt over memory beside the cipher of Go's library alone, verity beside the
// hash alone, and LUKS over NBD beside qemu-nbd and nbdkit's filter.

const (
	restBytes  = 16 << 20 // of each disk
	restChunk  = 64 << 10
	restLong   = 128 << 10 // what crypt hands to workers
	restDepth  = 16
	restSector = 512
)

func benchRest(r *report) error {
	if err := r.crypt(); err != nil {
		return err
	}
	if err := r.verity(); err != nil {
		return err
	}
	return r.luks()
}

// onCores is the MB/s of something that handles restBytes, again and again, on so many
// processors. With one, only processor time counts, since others may use the processor as well.
func onCores(n int, name string, do func() error) measured {
	if n == 1 {
		return timed(n, name, "MB/s of processor time", cpuTime, do)
	}
	return timed(n, name, "MB/s", wall, do)
}

var started = time.Now()

// wall is the time since the program started.
func wall() time.Duration { return time.Since(started) }

func timed(n int, name, unit string, clock func() time.Duration, do func() error) measured {
	return measured{name, unit, func() (float64, error) {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(n))
		began, runs := clock(), 0
		for ; clock()-began < fioTime; runs++ {
			if err := do(); err != nil {
				return 0, err
			}
		}
		return float64(runs) * restBytes / 1e6 / (clock() - began).Seconds(), nil
	}}
}

// stream reads or writes a whole device by bios of so many bytes, restDepth at a time.
type stream struct {
	d        blk.Device
	size     int
	free     chan *blk.Bio
	inFlight sync.WaitGroup
	once     sync.Once
	failed   error
}

// newStream makes the bios, so that their memory is there before the clock runs.
func newStream(d blk.Device, op blk.Op, size int) *stream {
	s := &stream{d: d, size: size, free: make(chan *blk.Bio, restDepth)}
	for range restDepth {
		b := &blk.Bio{Op: op, End: s.end}
		b.SetData(make([]byte, size))
		s.free <- b
	}
	return s
}

func (s *stream) end(b *blk.Bio) {
	if err := b.Status().Err(); err != nil {
		s.once.Do(func() { s.failed = err })
	}
	s.free <- b
	s.inFlight.Done()
}

func (s *stream) run() error {
	for at := uint64(0); at < restBytes/blk.SectorSize; at += uint64(s.size / blk.SectorSize) {
		b := <-s.free
		b.Rearm()
		b.SetData(b.Bufs[0])
		b.Sector = at
		s.inFlight.Add(1)
		s.d.Submit(b)
	}
	s.inFlight.Wait()
	return s.failed
}

// cryptOn makes a device whose target has so many workers.
func cryptOn(n int, s *stack) (*dm.Device, error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(n))
	return s.device(fmt.Sprint("crypt", n), "0 %d crypt aes-xts-plain64 %s 0 m 0", restBytes/blk.SectorSize, strings.Repeat("0123456789abcdef", 8))
}

// alone does with restBytes what crypt over memory does, on n threads that share nothing: each
// has a cipher, buffers and memory of its own, which end with this process.
func alone(n int, op blk.Op) (func() error, error) {
	spec, err := skcipher.Parse("aes-xts-plain64")
	if err != nil {
		return nil, err
	}
	var threads []func()
	for range n {
		c, err := spec.New(bytes.Repeat([]byte{1}, 64), restSector, false)
		if err != nil {
			return nil, err
		}
		memory, buffers, outside := filled(restBytes/n), filled(restDepth*restLong), filled(restDepth*restLong)
		threads = append(threads, func() {
			for at := 0; at < len(memory); at += restLong {
				m, from := memory[at:at+restLong], at%len(buffers)
				b, o := buffers[from:from+restLong], outside[from:from+restLong]
				if op == blk.Read {
					copy(o, m)
					c.Decrypt(o, uint64(at/restSector))
					continue
				}
				copy(b, o)
				c.Encrypt(b, uint64(at/restSector))
				copy(m, b)
			}
		})
	}
	return func() error {
		var wg sync.WaitGroup
		for _, f := range threads {
			wg.Go(f)
		}
		wg.Wait()
		return nil
	}, nil
}

// filled is memory that the kernel has given already.
func filled(n int) []byte { return bytes.Repeat([]byte{1}, n) }

func (r *report) crypt() error {
	s := newStack(map[string]blk.Device{"m": memdev.New(restBytes / blk.SectorSize)})
	one, err := cryptOn(1, s)
	if err != nil {
		return err
	}
	two, err := cryptOn(2, s)
	if err != nil {
		return err
	}
	for _, op := range []blk.Op{blk.Write, blk.Read} {
		if err := r.cryptOver(one, op); err != nil {
			return err
		}
		if runtime.NumCPU() < 2 {
			continue
		}
		if err := r.workers(one, two, op); err != nil {
			return err
		}
	}
	return s.close()
}

// cryptOver compares crypt on one processor with the cipher of Go's library.
func (r *report) cryptOver(one *dm.Device, op blk.Op) error {
	bare, err := xts.NewCipher(aes.NewCipher, bytes.Repeat([]byte{1}, 64))
	if err != nil {
		return err
	}
	run := bare.Encrypt
	if op == blk.Read {
		run = bare.Decrypt
	}
	p := make([]byte, restChunk)
	const cipher, single = "golang.org/x/crypto/xts", "crypt, one worker"
	group := fmt.Sprintf("rest: crypt, %v", op)
	err = r.group(group,
		onCores(1, cipher, func() error {
			for n := range uint64(restBytes / restSector) {
				q := p[n*restSector%restChunk:][:restSector]
				run(q, q, n)
			}
			return nil
		}),
		onCores(1, single, newStream(one, op, restChunk).run))
	if err == nil {
		r.atLeast(0.8, r.ratio(group, single, cipher), "%s over memory: one processor over the bare cipher", group)
	}
	return err
}

// workers compares two workers with one, and both with threads that share nothing: what those
// reach together is the most that the machine allows.
func (r *report) workers(one, two *dm.Device, op blk.Op) error {
	single, err := alone(1, op)
	if err != nil {
		return err
	}
	double, err := alone(2, op)
	if err != nil {
		return err
	}
	cases := []measured{
		timed(1, "crypt, one worker", "MB/s", wall, newStream(one, op, restLong).run),
		onCores(2, "crypt, two workers", newStream(two, op, restLong).run),
		timed(1, "the cipher, one thread", "MB/s", wall, single),
		onCores(2, "the cipher, two threads that share nothing", double),
	}
	group := fmt.Sprintf("rest: crypt, %v, workers", op)
	if err := r.group(group, cases...); err != nil {
		return err
	}
	gain := r.ratio(group, cases[1].name, cases[0].name)
	r.atLeast(1.8, gain, "%s over memory: two workers over one", group)
	r.atLeast(0.95, gain/r.ratio(group, cases[3].name, cases[2].name), "%s over memory: the same, over threads that share nothing", group)
	return nil
}

func (r *report) verity() error {
	data, tree := memdev.New(restBytes/blk.SectorSize), memdev.New(1<<12)
	h := &veritytools.Header{Shape: hashtree.Shape{Version: 1, DataBlock: 4096, HashBlock: 4096, DataBlocks: restBytes / 4096, Algorithm: "sha256", Salt: make([]byte, 32)}}
	err := h.Check(0, false)
	if err == nil {
		err = blk.WriteSectors(env.Real(), data, bytes.Repeat([]byte("data"), restBytes/4), 0, 0)
	}
	var root []byte
	if err == nil {
		root, err = veritytools.Create(env.Real(), data, tree, h)
	}
	if err != nil {
		return err
	}
	s := newStack(map[string]blk.Device{"data": data, "tree": tree})
	d, err := s.c.Create("verity", "", -1)
	if err == nil {
		err = d.Load([]dm.Spec{dm.NewSpec(0, h.Sectors(), h.Line("data", "tree", root))}, dm.Mode{})
	}
	if err == nil {
		err = d.Resume(context.Background(), false)
	}
	if err != nil {
		return err
	}
	block := make([]byte, 32+4096)
	const group, hash, target = "rest: verity, read", "sha256 of blocks of 4 KiB", "verity, one processor"
	err = r.group(group,
		onCores(1, hash, func() error {
			for range restBytes / 4096 {
				sha256.Sum256(block)
			}
			return nil
		}),
		onCores(1, target, newStream(d, blk.Read, restChunk).run))
	if err == nil {
		r.atLeast(0.8, r.ratio(group, target, hash), "%s over memory: over the bare hash", group)
	}
	return err
}

func (r *report) luks() error {
	loads := []load{{"randread", "4k", 16, 1, 0}, {"randwrite", "4k", 16, 1, 0}, {"read", "64k", 16, 1, 0}, {"write", "64k", 16, 1, 0}}
	if r.quick {
		loads = loads[:2]
	}
	const kind = "rest: LUKS over NBD"
	if err := r.beside(kind, []string{"fio", "nbdkit", "qemu-nbd", "cryptsetup"}, startLUKS, loads); err != nil {
		return err
	}
	for _, l := range loads {
		g := kind + ": " + l.String()
		for _, other := range []string{"qemu-nbd luks", "nbdkit luks"} {
			r.atLeast(2, r.ratio(g, "udm luks", other), "%s: udm over %s", g, other)
		}
	}
	return nil
}

// startLUKS starts the servers, each on a disk of its own with the same header.
func startLUKS(dir string) (servers []*server, stop func(), err error) {
	stop = func() { stopAll(servers) }
	pass := filepath.Join(dir, "pass")
	if err := os.WriteFile(pass, []byte("pass"), 0o600); err != nil {
		return nil, stop, err
	}
	image := func(name string) string { return filepath.Join(dir, name+".luks") }
	for _, name := range []string{"udm", "qemu", "nbdkit"} {
		if err = os.WriteFile(image(name), nil, 0o600); err == nil {
			err = os.Truncate(image(name), nbdSize+(2<<20))
		}
		if err == nil {
			err = command("cryptsetup", "-q", "luksFormat", "--type", "luks1", "--key-size", "512", "--pbkdf-force-iterations", "1000", image(name), pass)
		}
		if err != nil {
			return nil, stop, err
		}
	}
	program, err := filepath.Abs("bin/udm") // make build makes it
	if err != nil {
		return nil, stop, err
	}
	for _, c := range [][]string{
		{"udm luks", program, "luks", "open", image("udm"), "--key-file", pass, "--socket", "SOCK"},
		{"qemu-nbd luks", "qemu-nbd", "-t", "-e", "8", "-k", "SOCK", "--object", "secret,id=s,file=" + pass, "--image-opts", "driver=luks,key-secret=s,file.filename=" + image("qemu")},
		{"nbdkit luks", "nbdkit", "-f", "-U", "SOCK", "--filter=luks", "file", image("nbdkit"), "passphrase=+" + pass},
	} {
		if servers, err = launch(dir, servers, c[0], c[1:]...); err != nil {
			return servers, stop, err
		}
	}
	servers[0].uri = strings.Replace(servers[0].uri, "///", "///disk", 1)
	return servers, stop, nil
}
