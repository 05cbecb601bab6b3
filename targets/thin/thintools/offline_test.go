package thinmeta

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/env"
	"udm/pdata"
)

// busyPool is a pool that random operations have been through.
func busyPool(t *testing.T, seed uint64, ops int) *pool {
	p := newPool(t, 4096, 20000, 0)
	rng := rand.New(rand.NewPCG(seed, 3))
	next := uint64(0)
	for i := range ops {
		p.step(rng, &next, i)
	}
	if p.m.HeldRoot() != 0 {
		ok(t, p.m.ReleaseSnap())
	}
	p.commit()
	return p
}

func dump(t testing.TB, dev blk.Device, o DumpOptions) string {
	t.Helper()
	var b bytes.Buffer
	ok(t, Dump(env.Real(), dev, &b, o))
	return b.String()
}

// same compares our text with a tool's, unless the tool is missing.
func same(t *testing.T, what, ours, theirs string) {
	t.Helper()
	if theirs != "" && ours != theirs {
		a, b := strings.Split(ours, "\n"), strings.Split(theirs, "\n")
		for i := range min(len(a), len(b)) {
			if a[i] != b[i] {
				t.Fatalf("%s: line %d is %q, want %q", what, i+1, a[i], b[i])
			}
		}
		t.Fatalf("%s: %d lines, want %d", what, len(a), len(b))
	}
}

func TestToolsAgree(t *testing.T) {
	p := busyPool(t, *seed, 6000)
	ids := make([]string, 0)
	for id := range p.now.devs {
		ids = append(ids, fmt.Sprint(id))
	}
	same(t, "thin_dump", dump(t, p.dev, DumpOptions{}), tool(t, p.dev, "thin_dump"))
	same(t, "thin_dump -f human_readable", dump(t, p.dev, DumpOptions{Human: true}), tool(t, p.dev, "thin_dump", "-f", "human_readable"))
	same(t, "thin_dump --skip-mappings", dump(t, p.dev, DumpOptions{SkipMappings: true}), tool(t, p.dev, "thin_dump", "--skip-mappings"))
	var id uint32
	fmt.Sscan(ids[0], &id)
	same(t, "thin_dump --dev-id", dump(t, p.dev, DumpOptions{Devices: []uint32{id}}), tool(t, p.dev, "thin_dump", "--dev-id", ids[0]))
	r := must(Check(env.Real(), p.dev, CheckOptions{}))
	if r.FreeMetadata != p.m.tm.Map().Free() {
		t.Fatalf("%d metadata blocks free, want %d", r.FreeMetadata, p.m.tm.Map().Free())
	}
	for _, fields := range [][]string{nil, LsFields()} {
		var b bytes.Buffer
		ok(t, Ls(env.Real(), p.dev, &b, LsOptions{Fields: fields}))
		var args []string
		if fields != nil {
			args = []string{"-o", strings.Join(fields, ",")}
		}
		same(t, "thin_ls", b.String(), tool(t, p.dev, "thin_ls", args...))
	}
	for _, verbose := range []bool{false, true} {
		args := []string{"--thin1", ids[0], "--thin2", ids[1]}
		if verbose {
			args = append(args, "--verbose")
		}
		var left, right uint32
		fmt.Sscan(ids[0], &left)
		fmt.Sscan(ids[1], &right)
		var b bytes.Buffer
		ok(t, Delta(env.Real(), p.dev, &b, DeltaOptions{Left: left, Right: right, Verbose: verbose}))
		same(t, "thin_delta", b.String(), tool(t, p.dev, "thin_delta", args...))
	}
}

func TestMetadataSnapTools(t *testing.T) {
	p := busyPool(t, 5, 3000)
	ok(t, p.m.ReserveSnap())
	p.commit()
	th := p.thin(firstID(p))
	for k := range uint64(300) {
		ok(t, p.insert(th, 10000+k*3))
	}
	th.Close()
	p.commit()
	tool(t, p.dev, "thin_check")
	verify(t, p.dev, p.now)
	snap := dump(t, p.dev, DumpOptions{MetadataSnap: true})
	same(t, "thin_dump -m", snap, tool(t, p.dev, "thin_dump", "-m"))
	r := must(Check(env.Real(), p.dev, CheckOptions{MetadataSnap: true}))
	ok(t, r.Err())
	ok(t, p.m.ReleaseSnap())
	p.commit()
	tool(t, p.dev, "thin_check")
}

func firstID(p *pool) (id uint32) {
	for id = range p.now.devs {
		break
	}
	return id
}

func TestMetadataSize(t *testing.T) {
	for _, c := range []struct{ block, pool, thins uint64 }{{64 << 10, 1 << 40, 1000}, {128 << 10, 100 << 30, 1}, {1 << 30, 1 << 50, 7}, {64 << 10, 1 << 20, 3}} {
		path, err := exec.LookPath("/usr/sbin/thin_metadata_size")
		if err != nil {
			t.Log("thin_metadata_size is not installed")
			return
		}
		out, err := exec.Command(path, "-n", "-b", fmt.Sprint(c.block, "b"), "-s", fmt.Sprint(c.pool, "b"), "-m", fmt.Sprint(c.thins), "-ub").Output()
		ok(t, err)
		if got := fmt.Sprint(MetadataSize(c.block, c.pool, c.thins)); got != strings.TrimSpace(string(out)) {
			t.Errorf("%v: %s, thin_metadata_size says %s", c, got, out)
		}
	}
}

// TestRestore goes from our dump to our restore, and through thin_restore.
func TestRestore(t *testing.T) {
	p := busyPool(t, *seed+1, 6000)
	text := dump(t, p.dev, DumpOptions{})
	dev := newDisk(2000)
	ok(t, Restore(env.Real(), strings.NewReader(text), dev, RestoreOptions{}))
	same(t, "dump of the restored", dump(t, dev, DumpOptions{}), text)
	tool(t, dev, "thin_check")
	same(t, "thin_dump of the restored", tool(t, dev, "thin_dump"), text)
	verify(t, dev, p.now)

	q := &pool{t: t, dev: dev, o: Options{}, now: p.now.clone(), old: p.now.clone()}
	q.open()
	rng := rand.New(rand.NewPCG(9, 9))
	next := uint64(0)
	for i := range 2000 {
		q.step(rng, &next, i)
	}
	q.commit()
	verify(t, dev, q.now)
	tool(t, dev, "thin_check")
	theirRestore(t, text, p.now)
}

// theirRestore opens and changes what thin_restore makes.
func theirRestore(t *testing.T, text string, now state) {
	path, err := exec.LookPath("/usr/sbin/thin_restore")
	if err != nil {
		t.Log("thin_restore is not installed")
		return
	}
	in, out := filepath.Join(t.TempDir(), "xml"), filepath.Join(t.TempDir(), "metadata")
	ok(t, os.WriteFile(in, []byte(text), 0o600))
	ok(t, os.WriteFile(out, make([]byte, 4000*pdata.BlockSize), 0o600))
	if msg, err := exec.Command(path, "-i", in, "-o", out).CombinedOutput(); err != nil {
		t.Fatalf("thin_restore: %v\n%s", err, msg)
	}
	dev := load(t, must(os.ReadFile(out)))
	q := &pool{t: t, dev: dev, o: Options{}, now: now.clone(), old: now.clone()}
	verify(t, dev, now)
	q.open()
	rng := rand.New(rand.NewPCG(8, 8))
	next := uint64(0)
	for i := range 3000 {
		q.step(rng, &next, i)
	}
	q.commit()
	verify(t, dev, q.now)
	tool(t, dev, "thin_check")
}

func load(t testing.TB, p []byte) *memdev.Device {
	t.Helper()
	dev := memdev.New(uint64(len(p))/blk.SectorSize, memdev.Volatile)
	ok(t, blk.WriteSectors(env.Real(), dev, p, 0, 0))
	return dev
}

func TestRestoreDefs(t *testing.T) {
	dev := newDisk(100)
	ok(t, Restore(env.Real(), strings.NewReader(`<?xml version="1.0"?>
<!-- a > comment -->
<superblock uuid='a&gt;b' time="3" transaction="4" data_block_size="128" nr_data_blocks="100">
  <def name="x"><range_mapping origin_begin="0" data_begin="10" length="5" time="1"></range_mapping></def>
  <device dev_id="5" mapped_blocks="5" transaction="1" creation_time="1" snap_time="2"><ref name="x"/></device>
  <device dev_id="2" mapped_blocks="6" transaction="1" creation_time="1" snap_time="2"><ref name="x"/>
    <single_mapping origin_block="9" data_block="3" time="2"/></device>
</superblock>`), dev, RestoreOptions{}))
	want := state{devs: map[uint32]map[uint64]uint64{2: {}, 5: {}}}
	for i := range uint64(5) {
		want.devs[2][i], want.devs[5][i] = 10+i, 10+i
	}
	want.devs[2][9] = 3
	verify(t, dev, want)
	tool(t, dev, "thin_check")
}

func TestRestoreRefuses(t *testing.T) {
	head := `<superblock uuid="" time="3" transaction="4" data_block_size="128" nr_data_blocks="100">`
	devh := head + `<device dev_id="1" mapped_blocks="0" transaction="0" creation_time="0" snap_time="0">`
	for name, text := range map[string]string{
		"nothing":       "",
		"no end":        head,
		"text":          head + "hello",
		"block size":    strings.Replace(head, `"128"`, `"100"`, 1) + "</superblock>",
		"beyond":        devh + `<range_mapping origin_begin="0" data_begin="98" length="3" time="0"/></device></superblock>`,
		"order":         devh + `<single_mapping origin_block="2" data_block="1" time="0"/><single_mapping origin_block="1" data_block="2" time="0"/></device></superblock>`,
		"number":        devh + `<single_mapping origin_block="x" data_block="1" time="0"/></device></superblock>`,
		"overflow":      devh + `<single_mapping origin_block="18446744073709551616" data_block="1" time="0"/></device></superblock>`,
		"twice":         devh + `</device>` + strings.TrimPrefix(devh, head) + `</device></superblock>`,
		"missing":       devh + `<single_mapping origin_block="1" data_block="1"/></device></superblock>`,
		"unknown tag":   head + "<x/></superblock>",
		"nested device": devh + strings.TrimPrefix(devh, head),
		"ref":           devh + `<ref name="a"/></device></superblock>`,
	} {
		dev := newDisk(100)
		err := Restore(env.Real(), strings.NewReader(text), dev, RestoreOptions{})
		if err == nil {
			t.Errorf("%s: restored", name)
		}
		if _, err := Open(env.Real(), dev, Options{DataBlockSize: 128, Format: true}); err == nil {
			t.Errorf("%s: what is left opens", name)
		}
	}
	big := devh + `<range_mapping origin_begin="0" data_begin="0" length="100" time="0"/></device></superblock>`
	if err := Restore(env.Real(), strings.NewReader(big), newDisk(6), RestoreOptions{}); err != ErrMetadataFull {
		t.Errorf("too small a device: %v", err)
	}
}

func TestTrim(t *testing.T) {
	p := busyPool(t, 11, 2000)
	free := make([]bool, p.now.size)
	_ = must(Trim(env.Real(), p.dev, func(b, e uint64) error {
		for ; b < e; b++ {
			free[b] = true
		}
		return nil
	}))
	for b := range free {
		if refs := must(p.m.DataRefs(uint64(b))); (refs == 0) != free[b] {
			t.Fatalf("block %d with %d references: free is %v", b, refs, free[b])
		}
	}
}

func writeBlock(t testing.TB, dev blk.Device, nr uint64, p []byte) {
	t.Helper()
	ok(t, blk.WriteSectors(env.Real(), dev, p, nr*pdata.BlockSectors, 0))
}

func readBlock(t testing.TB, dev blk.Device, nr uint64) []byte {
	t.Helper()
	p := make([]byte, pdata.BlockSize)
	ok(t, blk.ReadSectors(env.Real(), dev, p, nr*pdata.BlockSectors))
	return p
}
