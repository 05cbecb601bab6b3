package thintools_test

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
	"udm/env"
	"udm/pdata"
	"udm/targets/thin/internal/metatest"
	"udm/targets/thin/thinmeta"
	"udm/targets/thin/thintools"
)

// busyPool is a pool that random operations have been through.
func busyPool(t *testing.T, seed uint64, ops int) *metatest.Pool {
	p := metatest.New(t, 4096, 20000, 0)
	rng := rand.New(rand.NewPCG(seed, 3))
	next := uint64(0)
	for i := range ops {
		p.Step(rng, &next, i)
	}
	if p.M.HeldRoot() != 0 {
		ok(t, p.M.ReleaseSnap())
	}
	p.Commit()
	return p
}

func dump(t testing.TB, dev blk.Device, o thintools.DumpOptions) string {
	t.Helper()
	var b bytes.Buffer
	ok(t, thintools.Dump(env.Real(), dev, &b, o))
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
	p := busyPool(t, *metatest.Seed, 6000)
	ids := make([]string, 0)
	for id := range p.Now.Devs {
		ids = append(ids, fmt.Sprint(id))
	}
	same(t, "thin_dump", dump(t, p.Dev, thintools.DumpOptions{}), metatest.Tool(t, p.Dev, "thin_dump"))
	same(t, "thin_dump -f human_readable", dump(t, p.Dev, thintools.DumpOptions{Human: true}), metatest.Tool(t, p.Dev, "thin_dump", "-f", "human_readable"))
	same(t, "thin_dump --skip-mappings", dump(t, p.Dev, thintools.DumpOptions{SkipMappings: true}), metatest.Tool(t, p.Dev, "thin_dump", "--skip-mappings"))
	var id uint32
	fmt.Sscan(ids[0], &id)
	same(t, "thin_dump --dev-id", dump(t, p.Dev, thintools.DumpOptions{Devices: []uint32{id}}), metatest.Tool(t, p.Dev, "thin_dump", "--dev-id", ids[0]))
	r := must(thintools.Check(env.Real(), p.Dev, thintools.CheckOptions{}))
	free := uint64(0)
	for nr := range p.M.MetadataBlocks() {
		if must(p.M.MetadataRefs(nr)) == 0 {
			free++
		}
	}
	if r.FreeMetadata != free {
		t.Fatalf("%d metadata blocks free, want %d", r.FreeMetadata, free)
	}
	for _, fields := range [][]string{nil, thintools.LsFields()} {
		var b bytes.Buffer
		ok(t, thintools.Ls(env.Real(), p.Dev, &b, thintools.LsOptions{Fields: fields}))
		var args []string
		if fields != nil {
			args = []string{"-o", strings.Join(fields, ",")}
		}
		same(t, "thin_ls", b.String(), metatest.Tool(t, p.Dev, "thin_ls", args...))
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
		ok(t, thintools.Delta(env.Real(), p.Dev, &b, thintools.DeltaOptions{Left: left, Right: right, Verbose: verbose}))
		same(t, "thin_delta", b.String(), metatest.Tool(t, p.Dev, "thin_delta", args...))
	}
}

func TestMetadataSnapTools(t *testing.T) {
	p := busyPool(t, 5, 3000)
	ok(t, p.M.ReserveSnap())
	p.Commit()
	th := p.Thin(firstID(p))
	for k := range uint64(300) {
		ok(t, p.Insert(th, 10000+k*3))
	}
	th.Close()
	p.Commit()
	metatest.Tool(t, p.Dev, "thin_check")
	metatest.Verify(t, p.Dev, p.Now)
	snap := dump(t, p.Dev, thintools.DumpOptions{MetadataSnap: thintools.Snap{Use: true}})
	same(t, "thin_dump -m", snap, metatest.Tool(t, p.Dev, "thin_dump", "-m"))
	at := must(thinmeta.ReadSuper(env.Real(), p.Dev)).HeldRoot
	same(t, "thin_dump -m of a block", snap, metatest.Tool(t, p.Dev, "thin_dump", fmt.Sprintf("-m%d", at)))
	same(t, "the same block", dump(t, p.Dev, thintools.DumpOptions{MetadataSnap: thintools.Snap{Use: true, Block: at}}), snap)
	other := thintools.LsOptions{MetadataSnap: thintools.Snap{Use: true, Block: at + 1}}
	if _, _, err := thintools.List(env.Real(), p.Dev, false, other); err == nil {
		t.Error("a metadata snapshot in another block is read")
	}
	r := must(thintools.Check(env.Real(), p.Dev, thintools.CheckOptions{MetadataSnap: true}))
	ok(t, r.Err())
	ok(t, p.M.ReleaseSnap())
	p.Commit()
	metatest.Tool(t, p.Dev, "thin_check")
}

func firstID(p *metatest.Pool) (id uint32) {
	for id = range p.Now.Devs {
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
		if got := fmt.Sprint(thintools.MetadataSize(c.block, c.pool, c.thins)); got != strings.TrimSpace(string(out)) {
			t.Errorf("%v: %s, thin_metadata_size says %s", c, got, out)
		}
	}
}

// TestRestore goes from our dump to our restore, and through thin_restore.
func TestRestore(t *testing.T) {
	p := busyPool(t, *metatest.Seed+1, 6000)
	text := dump(t, p.Dev, thintools.DumpOptions{})
	dev := metatest.Disk(2000)
	ok(t, thintools.Restore(env.Real(), strings.NewReader(text), dev, thintools.RestoreOptions{}))
	same(t, "dump of the restored", dump(t, dev, thintools.DumpOptions{}), text)
	metatest.Tool(t, dev, "thin_check")
	same(t, "thin_dump of the restored", metatest.Tool(t, dev, "thin_dump"), text)
	metatest.Verify(t, dev, p.Now)

	q := &metatest.Pool{T: t, Dev: dev, O: thinmeta.Options{}, Now: p.Now.Clone(), Old: p.Now.Clone()}
	q.Open()
	rng := rand.New(rand.NewPCG(9, 9))
	next := uint64(0)
	for i := range 2000 {
		q.Step(rng, &next, i)
	}
	q.Commit()
	metatest.Verify(t, dev, q.Now)
	metatest.Tool(t, dev, "thin_check")
	theirRestore(t, text, p.Now)
}

// theirRestore opens and changes what thin_restore makes.
func theirRestore(t *testing.T, text string, now metatest.State) {
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
	dev := metatest.Load(t, must(os.ReadFile(out)))
	q := &metatest.Pool{T: t, Dev: dev, O: thinmeta.Options{}, Now: now.Clone(), Old: now.Clone()}
	metatest.Verify(t, dev, now)
	q.Open()
	rng := rand.New(rand.NewPCG(8, 8))
	next := uint64(0)
	for i := range 3000 {
		q.Step(rng, &next, i)
	}
	q.Commit()
	metatest.Verify(t, dev, q.Now)
	metatest.Tool(t, dev, "thin_check")
}

func TestRestoreDefs(t *testing.T) {
	dev := metatest.Disk(100)
	ok(t, thintools.Restore(env.Real(), strings.NewReader(`<?xml version="1.0"?>
<!-- a > comment -->
<superblock uuid='a&gt;b' time="3" transaction="4" data_block_size="128" nr_data_blocks="100">
  <def name="x"><range_mapping origin_begin="0" data_begin="10" length="5" time="1"></range_mapping></def>
  <device dev_id="5" mapped_blocks="5" transaction="1" creation_time="1" snap_time="2"><ref name="x"/></device>
  <device dev_id="2" mapped_blocks="6" transaction="1" creation_time="1" snap_time="2"><ref name="x"/>
    <single_mapping origin_block="9" data_block="3" time="2"/></device>
</superblock>`), dev, thintools.RestoreOptions{}))
	want := metatest.State{Devs: map[uint32]map[uint64]uint64{2: {}, 5: {}}}
	for i := range uint64(5) {
		want.Devs[2][i], want.Devs[5][i] = 10+i, 10+i
	}
	want.Devs[2][9] = 3
	metatest.Verify(t, dev, want)
	metatest.Tool(t, dev, "thin_check")
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
		dev := metatest.Disk(100)
		err := thintools.Restore(env.Real(), strings.NewReader(text), dev, thintools.RestoreOptions{})
		if err == nil {
			t.Errorf("%s: restored", name)
		}
		if _, err := thinmeta.Open(env.Real(), dev, thinmeta.Options{DataBlockSize: 128, Format: true}); err == nil {
			t.Errorf("%s: what is left opens", name)
		}
	}
	big := devh + `<range_mapping origin_begin="0" data_begin="0" length="100" time="0"/></device></superblock>`
	if err := thintools.Restore(env.Real(), strings.NewReader(big), metatest.Disk(6), thintools.RestoreOptions{}); err != thinmeta.ErrMetadataFull {
		t.Errorf("too small a device: %v", err)
	}
}

func TestTrim(t *testing.T) {
	p := busyPool(t, 11, 2000)
	free := make([]bool, p.Now.Size)
	_ = must(thintools.Trim(env.Real(), p.Dev, func(b, e uint64) error {
		for ; b < e; b++ {
			free[b] = true
		}
		return nil
	}))
	for b := range free {
		if refs := must(p.M.DataRefs(uint64(b))); (refs == 0) != free[b] {
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
