//go:build unix

package kernel

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"udm/test/kernel/conform"
)

const (
	killedBlocks = 512 // of 4 KiB, in each device
	killedStep   = 37  // from one write to the next, in blocks
)

// killedScript writes to the origin, its snapshot (even numbers only) and a thin device in turn, each write durable before its number is
// told.
const killedScript = `
dmsetup create org --table "0 4096 snapshot-origin $D0"
dmsetup suspend org
dmsetup create s --table "0 4096 snapshot $D0 $D1 PO 8"
dmsetup resume org
dmsetup create pool --table "0 32768 thin-pool $D2 $D3 128 0"
dmsetup message pool 0 create_thin 0
dmsetup create t --table "0 4096 thin /dev/mapper/pool 0"
i=0
while [ $i -lt 500 ]; do
	for d in org s t; do
		[ $d = s ] && [ $((i % 2)) = 1 ] && continue
		dd if=$OUT/data of=/dev/mapper/$d bs=4k skip=$i seek=$((i * 37 % 512)) count=1 oflag=direct,sync conv=notrunc status=none
	done
	echo $i >>$OUT/told
	i=$((i+1))
done
sleep 100000
`

// killedBlock is what write n writes.
func killedBlock(n int64) []byte {
	p := make([]byte, 4096)
	conform.Fill(p, 1, n*8)
	return p
}

// TestKernelKilled kills the kernel while it writes to a snapshot, its origin and a thin device; udm finds everything there that was
// durable, and metadata that thin_check accepts.
func TestKernelKilled(t *testing.T) {
	Need(t)
	h := newUDM(t)
	for n := range number(*crossSeeds, 1, 10) {
		disks := []string{diskFile(t, "o", 2<<20), diskFile(t, "c", 8<<20), diskFile(t, "m", 2<<20), diskFile(t, "d", 16<<20)}
		dir := t.TempDir()
		var data []byte
		for i := range int64(killedBlocks) {
			data = append(data, killedBlock(i)...)
		}
		if err := os.WriteFile(filepath.Join(dir, "data"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		told := killWhen(t, Options{Disks: disks, Dir: dir, Script: killedScript}, 10+n*13)
		t.Logf("killed after %d writes", told)
		checkKilled(t, h, disks, told)
	}
}

// killWhen boots and kills the kernel when it has told of the given number of writes; it returns how many it has told of in the end.
func killWhen(t *testing.T, o Options, writes int) (told int) {
	t.Helper()
	err := again(t, append(slices.Clone(o.Disks), o.Dir), func() (err error) {
		told, err = bootUntil(o, writes)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return told
}

func bootUntil(o Options, writes int) (told int, err error) {
	ctx, kill := context.WithCancel(context.Background())
	defer kill()
	ended := make(chan error, 1)
	go func() {
		r, err := Run(ctx, o)
		if ctx.Err() == nil {
			err = fmt.Errorf("the kernel ended by itself: %w: %s", err, r.Output)
		}
		ended <- err
	}()
	for countTold(o.Dir) < writes {
		select {
		case err := <-ended:
			return 0, err
		case <-time.After(time.Millisecond): // hostfs tells nobody that a file has grown
		}
	}
	kill()
	<-ended
	return countTold(o.Dir), nil
}

func countTold(dir string) int {
	p, _ := os.ReadFile(filepath.Join(dir, "told")) // not there before the first write
	return bytes.Count(p, []byte("\n"))
}

func checkKilled(t *testing.T, h *udmHost, disks []string, told int) {
	t.Helper()
	for _, line := range []string{
		"create org --table|0 4096 snapshot-origin O", "create s --table|0 4096 snapshot O C PO 8",
		"create pool --table|0 32768 thin-pool M D 128 0", "create t --table|0 4096 thin /dev/mapper/pool 0",
	} {
		line = strings.NewReplacer(" O", " "+disks[0], " C", " "+disks[1], " M", " "+disks[2], " D", " "+disks[3]).Replace(line)
		verb, table, _ := strings.Cut(line, "|")
		e, err := h.Dmsetup(context.Background(), append(strings.Fields(verb), table), "")
		if err != nil || e.Code != 0 {
			t.Fatalf("%s: %v %s", line, err, e.Stderr)
		}
	}
	for _, name := range []string{"org", "s", "t"} {
		got := make([]byte, killedBlocks*4096)
		d, err := h.Open(name)
		if err == nil {
			err = d.Read(got, 0)
		}
		if err == nil {
			err = d.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		for i := range int64(killedBlocks) {
			at := i * killedStep % killedBlocks
			block := got[at*4096:][:4096]
			written, empty := bytes.Equal(block, killedBlock(i)), bytes.Equal(block, make([]byte, 4096))
			kept := name == "s" && i%2 == 1
			// Of the write under way any part may be there.
			if (kept || i > int64(told)) && !empty || !kept && i < int64(told) && !written {
				t.Errorf("%s: block %d of write %d: written %v, empty %v, after %d writes", name, at, i, written, empty, told)
			}
		}
	}
	if err := h.Reset(); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("thin_check", "--ignore-non-fatal-errors", disks[2]).CombinedOutput(); err != nil {
		t.Errorf("thin_check: %v\n%s", err, out)
	}
}
