package partition_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/filedev"
	"udm/blk/memdev"
	"udm/blk/partition"
	"udm/env"
	"udm/test/need"
)

// sfdisk is what sfdisk --json says.
type sfdisk struct {
	Table struct {
		Label, ID  string
		Partitions []sfdiskPartition
	} `json:"partitiontable"`
}

type sfdiskPartition struct {
	Node, Type, UUID, Name, Attrs string
	Start, Size                   uint64
	Bootable                      bool
}

func TestTablesOfSfdisk(t *testing.T) {
	need.Tools(t, "sfdisk")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for i := range 25 {
		image := filepath.Join(t.TempDir(), "image")
		if err := filedev.Create(image, 1<<20); err != nil {
			t.Fatal(err)
		}
		script := randomScript(rng)
		write := exec.Command("sfdisk", "--no-reread", "--no-tell-kernel", "--wipe=never", "-q", image)
		write.Stdin = strings.NewReader(script)
		if out, err := write.CombinedOutput(); err != nil {
			t.Fatalf("%s\n%s", script, out)
		}
		out, err := exec.Command("sfdisk", "--json", image).Output()
		if err != nil {
			t.Fatal(err)
		}
		var want sfdisk
		if err := json.Unmarshal(out, &want); err != nil {
			t.Fatal(err)
		}
		f, err := filedev.Open(image, filedev.Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		got, err := partition.Read(env.Real(), f)
		f.Close()
		if err != nil {
			t.Fatalf("%d: %v\n%s", i, err, script)
		}
		compare(t, image, got, &want)
		if t.Failed() {
			t.Fatalf("%s\n%s\n%+v", script, out, got)
		}
	}
}

// randomScript is input of sfdisk: partitions with gaps, in any order.
func randomScript(rng *rand.Rand) string {
	var b strings.Builder
	label := []string{"gpt", "dos"}[rng.IntN(2)]
	fmt.Fprintf(&b, "label: %s\n", label)
	n, at := 1+rng.IntN(9), uint64(2048)
	var lines []string
	for i := 1; i <= n; i++ {
		size := 1 + rng.Uint64N(60_000)
		switch {
		case label == "gpt":
			lines = append(lines, fmt.Sprintf("%d: start=%d, size=%d, name=\"n%d é\"", i+rng.IntN(2)*20, at, size, i))
		case i < 4:
			lines = append(lines, fmt.Sprintf("%d: start=%d, size=%d, type=83%s", i, at, size, []string{"", ", bootable"}[rng.IntN(2)]))
		case i == 4:
			lines = append(lines, fmt.Sprintf("4: start=%d, size=%d, type=%s", at, 1<<20-at, []string{"5", "f"}[rng.IntN(2)]))
			size = 0
		default:
			lines = append(lines, fmt.Sprintf("%d: start=%d, size=%d, type=82", i, at, size))
		}
		at += size + 2048 + rng.Uint64N(5000)
	}
	if label == "gpt" {
		rng.Shuffle(n, func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
		lines = slices.CompactFunc(lines, func(a, b string) bool { return a[:2] == b[:2] })
	}
	return b.String() + strings.Join(lines, "\n") + "\n"
}

func compare(t *testing.T, image string, got *partition.Table, want *sfdisk) {
	t.Helper()
	w := want.Table
	if got.Kind != w.Label || got.ID != w.ID || len(got.Partitions) != len(w.Partitions) || len(got.Damage) != 0 {
		t.Errorf("the table")
		return
	}
	for _, p := range got.Partitions {
		node := fmt.Sprintf("%s%d", image, p.Number)
		i := slices.IndexFunc(w.Partitions, func(q sfdiskPartition) bool { return q.Node == node })
		if i < 0 {
			t.Errorf("partition %d", p.Number)
			continue
		}
		q := w.Partitions[i]
		if p.Start != q.Start || p.Sectors != q.Size || p.Type != q.Type || p.ID != q.UUID || p.Name != q.Name || p.Bootable != q.Bootable {
			t.Errorf("%+v, want %+v", p, q)
		}
	}
}

var le = binary.LittleEndian

// gptDisk is a disk of 1 MiB with a GPT of two partitions in blocks of a size.
func gptDisk(block int) []byte {
	disk := make([]byte, 1<<20)
	last := len(disk)/block - 1
	disk[446+4], disk[510], disk[511] = 0xee, 0x55, 0xaa
	le.PutUint32(disk[446+8:], 1)
	le.PutUint32(disk[446+12:], uint32(last))
	entries := make([]byte, 128*4)
	for i := range 2 {
		e := entries[i*128:]
		e[0], e[16], e[56] = 1, byte(i+1), 'a'
		le.PutUint64(e[32:], uint64(40+10*i))
		le.PutUint64(e[40:], uint64(44+10*i))
	}
	for _, at := range [][3]int{{1, last, 2}, {last, 1, last - 1}} {
		copy(disk[at[2]*block:], entries)
		h := disk[at[0]*block:]
		copy(h, "EFI PART")
		le.PutUint32(h[12:], 92)
		le.PutUint64(h[24:], uint64(at[0]))
		le.PutUint64(h[32:], uint64(at[1]))
		le.PutUint64(h[72:], uint64(at[2]))
		le.PutUint32(h[80:], 4)
		le.PutUint32(h[84:], 128)
		le.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:92]))
	}
	return disk
}

func onDisk(p []byte, block uint32) blk.Device {
	d := memdev.New(uint64(len(p))/512, memdev.Tune(func(l *blk.Limits) { l.LogicalBlock, l.PhysicalBlock, l.MinIO = block, block, block }))
	if err := blk.WriteSectors(env.Real(), d, p, 0, 0); err != nil {
		panic(err)
	}
	return d
}

func TestGPTInBlocksOf(t *testing.T) {
	for _, c := range []struct {
		table int
		disk  uint32
	}{{512, 512}, {4096, 4096}, {4096, 512}} {
		got, err := partition.Read(env.Real(), onDisk(gptDisk(c.table), c.disk))
		if err != nil || len(got.Partitions) != 2 || got.Damage != nil {
			t.Errorf("%+v: %+v, %v", c, got, err)
			continue
		}
		unit := uint64(c.table / 512)
		if p := got.Partitions[1]; p.Number != 2 || p.Start != 50*unit || p.Sectors != 5*unit || got.Block != uint32(c.table) {
			t.Errorf("%+v: %+v", c, got)
		}
	}
	if _, err := partition.Read(env.Real(), onDisk(gptDisk(512), 4096)); err == nil {
		t.Error("blocks smaller than the disk's")
	}
}

// Each byte of each copy damaged: the other copy is used, and the damage is told.
func TestDamagedCopy(t *testing.T) {
	good := gptDisk(512)
	want, err := partition.Read(env.Real(), onDisk(good, 512))
	if err != nil {
		t.Fatal(err)
	}
	last := len(good) - 512
	for _, from := range []int{512, 1024, last, last - 512} {
		for at := range 92 {
			bad := bytes.Clone(good)
			bad[from+at] ^= 0x10
			got, err := partition.Read(env.Real(), onDisk(bad, 512))
			if err != nil || fmt.Sprint(got.Partitions) != fmt.Sprint(want.Partitions) || len(got.Damage) == 0 {
				t.Fatalf("byte %d: %+v, %v", from+at, got, err)
			}
		}
	}
	bad := bytes.Clone(good)
	bad[512]++
	bad[last]++
	if _, err := partition.Read(env.Real(), onDisk(bad, 512)); err == nil || !strings.Contains(err.Error(), "both copies") {
		t.Error(err)
	}
	grown, err := partition.Read(env.Real(), onDisk(append(good, make([]byte, 1<<20)...), 512))
	if err != nil || len(grown.Damage) != 1 || !strings.Contains(grown.Damage[0], "grown") {
		t.Errorf("%+v, %v", grown, err)
	}
}

func mbrDisk() []byte {
	p := make([]byte, 1<<20)
	entry := func(block, i int, kind byte, first, count uint32) {
		b := p[block*512:]
		b[510], b[511] = 0x55, 0xaa
		e := b[446+16*i:]
		e[4] = kind
		le.PutUint32(e[8:], first)
		le.PutUint32(e[12:], count)
	}
	entry(0, 0, 0x83, 8, 8)
	entry(0, 2, 0x0f, 100, 900)
	entry(100, 0, 0x83, 1, 10)
	entry(100, 1, 0x05, 50, 100)
	entry(150, 0, 0x82, 2, 20)
	return p
}

func TestLogicalPartitions(t *testing.T) {
	loop := mbrDisk()
	copy(loop[150*512+446+16:], loop[100*512+446+16:][:16])
	le.PutUint32(loop[150*512+446+16+8:], 50)
	cut := mbrDisk()
	cut[150*512+510] = 0
	for name, c := range map[string]struct {
		disk   []byte
		want   string
		damage string
	}{
		"good": {mbrDisk(), "1:8+8 3:100+900 5:101+10 6:152+20 ", ""},
		"loop": {loop, "1:8+8 3:100+900 5:101+10 6:152+20 ", "is a loop"},
		"cut":  {cut, "1:8+8 3:100+900 5:101+10 ", "no signature"},
	} {
		got, err := partition.Read(env.Real(), onDisk(c.disk, 512))
		if err != nil {
			t.Fatal(err)
		}
		text := ""
		for _, p := range got.Partitions {
			text += fmt.Sprintf("%d:%d+%d ", p.Number, p.Start, p.Sectors)
		}
		if text != c.want || !strings.Contains(fmt.Sprint(got.Damage), c.damage) || (c.damage == "") != (got.Damage == nil) {
			t.Errorf("%s: %s %v", name, text, got.Damage)
		}
	}
}

func TestOpen(t *testing.T) {
	e := env.Real()
	disk := mbrDisk()
	disk[152*512] = 7
	d := onDisk(disk, 512)
	p, err := partition.Open(e, d, 6)
	if err != nil || p.Limits().Size != 20 {
		t.Fatal(err)
	}
	got := make([]byte, 512)
	if err := blk.ReadSectors(e, p, got, 0); err != nil || got[0] != 7 {
		t.Error(got[0], err)
	}
	for n, want := range map[int]string{2: "it has [1 5 6]", 3: "extended"} {
		if _, err := partition.Open(e, d, n); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("partition %d: %v", n, err)
		}
	}
	fat := mbrDisk()
	fat[446] = 0x66
	for _, p := range [][]byte{make([]byte, 4096), fat} {
		if _, err := partition.Read(e, onDisk(p, 512)); !errors.Is(err, partition.ErrNone) {
			t.Error(err)
		}
	}
}

// FuzzRead: whatever is on the disk, what is listed is on it.
func FuzzRead(f *testing.F) {
	f.Add(mbrDisk()[:200*512], false)
	f.Add(gptDisk(512)[:64*512], false)
	f.Add(gptDisk(4096)[:64*512], true)
	f.Fuzz(func(t *testing.T, p []byte, large bool) {
		block := uint32(512)
		if large {
			block = 4096
		}
		p = p[:min(len(p), 1<<20)/4096*4096]
		if len(p) == 0 {
			return
		}
		got, err := partition.Read(env.Real(), onDisk(p, block))
		if err != nil {
			return
		}
		for _, x := range got.Partitions {
			if end := x.Start + x.Sectors; x.Sectors == 0 || end < x.Start || end > uint64(len(p))/512 {
				t.Errorf("%+v", x)
			}
		}
	})
}
