//go:build ceph && cgo

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"time"

	"udm/blk"
	"udm/blk/rbddev"
	"udm/env"
)

// An image of a Ceph cluster, which CEPH_CONF names, in its pool rbd: blocks of 4 KiB at random
// places, 16 in flight, by udm and by the program rbd, which opens the image for each round.

const (
	rbdImage = "rbd/udm-bench"
	rbdBytes = 256 << 20
	rbdDepth = 16
	rbdBlock = 4096
)

func init() {
	sections = append(sections, struct {
		name string
		run  func(*report) error
	}{"rbd", benchRBD})
}

func benchRBD(r *report) (err error) {
	if err := rbd("create", "--size", strconv.Itoa(rbdBytes>>20), rbdImage); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rbd("rm", "--no-progress", rbdImage)) }()
	if err := rbd("bench", "--io-type", "write", "--io-size", "1M", "--io-total", strconv.Itoa(rbdBytes), rbdImage); err != nil {
		return err
	}
	total := 16384
	if r.quick {
		total /= 4
	}
	for op, name := range map[blk.Op]string{blk.Read: "read", blk.Write: "write"} {
		err := r.group("RBD: random "+name+" 4k, depth 16",
			measured{"udm", "IO/s", func() (float64, error) { return udmOnImage(op, total) }},
			measured{"rbd bench", "IO/s", func() (float64, error) { return rbdOnImage(name, total) }})
		if err != nil {
			return err
		}
	}
	return nil
}

func rbd(args ...string) error {
	out, err := exec.Command("rbd", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("rbd %v: %w\n%s", args, err, out)
	}
	return nil
}

// opsPerSecond is in the last line of rbd bench.
var opsPerSecond = regexp.MustCompile(`ops/sec: ([\d.]+)`)

func rbdOnImage(op string, total int) (float64, error) {
	out, err := exec.Command("rbd", "bench", "--rbd-cache=false", "--io-type", op, "--io-pattern", "rand", "--io-size", strconv.Itoa(rbdBlock),
		"--io-threads", strconv.Itoa(rbdDepth), "--io-total", strconv.Itoa(total*rbdBlock), rbdImage).Output()
	if err != nil {
		return 0, err
	}
	m := opsPerSecond.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("rbd bench says %q", out)
	}
	return strconv.ParseFloat(string(m[1]), 64)
}

// udmOnImage counts from the first request to the last answer, as rbd bench does.
func udmOnImage(op blk.Op, total int) (_ float64, err error) {
	o, err := rbddev.Parse(rbdImage)
	if err != nil {
		return 0, err
	}
	id, err := rbddev.Find(o)
	if err != nil {
		return 0, err
	}
	d, err := rbddev.Open(env.Real(), o, id, true)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	began := time.Now()
	if err := keepInFlight(d, op, total); err != nil {
		return 0, err
	}
	return float64(total) / time.Since(began).Seconds(), nil
}

// keepInFlight does I/O at random places, rbdDepth at a time.
func keepInFlight(d blk.Device, op blk.Op, total int) error {
	var users sync.WaitGroup
	errs := make([]error, rbdDepth)
	for i := range errs {
		users.Go(func() {
			p := make([]byte, rbdBlock)
			for range total / rbdDepth {
				at := rand.Uint64N(rbdBytes/rbdBlock) * (rbdBlock / blk.SectorSize)
				b := &blk.Bio{Op: op, Sector: at}
				b.SetData(p)
				if err := blk.Do(env.Real(), d, b).Err(); err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	users.Wait()
	return errors.Join(errs...)
}
