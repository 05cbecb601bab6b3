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
func stream(d blk.Device, op blk.Op, size int) error {
	free := make(chan *blk.Bio, restDepth)
	var inFlight sync.WaitGroup
	var once sync.Once
	var failed error
	for range restDepth {
		b := &blk.Bio{Op: op}
		b.SetData(make([]byte, size))
		b.End = func(b *blk.Bio) {
			if err := b.Status().Err(); err != nil {
				once.Do(func() { failed = err })
			}
			free <- b
			inFlight.Done()
		}
		free <- b
	}
	for at := uint64(0); at < restBytes/blk.SectorSize; at += uint64(size / blk.SectorSize) {
		b := <-free
		b.Rearm()
		b.SetData(b.Bufs[0])
		b.Sector = at
		inFlight.Add(1)
		d.Submit(b)
	}
	inFlight.Wait()
	return failed
}

// cryptOn makes a device whose target has so many workers.
func cryptOn(n int, s *stack) (*dm.Device, error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(n))
	return s.device(fmt.Sprint("crypt", n), "0 %d crypt aes-xts-plain64 %s 0 m 0", restBytes/blk.SectorSize, strings.Repeat("0123456789abcdef", 8))
}

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
	bare, err := xts.NewCipher(aes.NewCipher, bytes.Repeat([]byte{1}, 64))
	if err != nil {
		return err
	}
	p := make([]byte, restChunk)
	each := func(do func(q []byte, n uint64)) func() error {
		return func() error {
			for n := range uint64(restBytes / restSector) {
				at := n * restSector % restChunk
				do(p[at:at+restSector], n)
			}
			return nil
		}
	}
	for _, op := range []struct {
		name string
		op   blk.Op
		bare func(q []byte, n uint64)
	}{{"write", blk.Write, func(q []byte, n uint64) { bare.Encrypt(q, q, n) }}, {"read", blk.Read, func(q []byte, n uint64) { bare.Decrypt(q, q, n) }}} {
		group := "rest: crypt, " + op.name
		const cipher, single, double = "golang.org/x/crypto/xts", "crypt, one worker", "crypt, two workers"
		err := r.group(group,
			onCores(1, cipher, each(op.bare)),
			onCores(1, single, func() error { return stream(one, op.op, restChunk) }))
		if err != nil {
			return err
		}
		r.atLeast(0.8, r.ratio(group, single, cipher), "%s over memory: one processor over the bare cipher", group)
		if runtime.NumCPU() < 2 {
			continue
		}
		workers := group + ", workers"
		err = r.group(workers,
			timed(1, single, "MB/s", wall, func() error { return stream(one, op.op, restLong) }),
			onCores(2, double, func() error { return stream(two, op.op, restLong) }))
		if err != nil {
			return err
		}
		r.atLeast(1.8, r.ratio(workers, double, single), "%s over memory: two workers over one", group)
	}
	return s.close()
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
		onCores(1, target, func() error { return stream(d, blk.Read, restChunk) }))
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
