//go:build linux

package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/nbdclient"
	"udm/ctl"
	"udm/ctl/server/attach"
	"udm/ctl/server/handover"
	"udm/ctl/server/service"
	"udm/ctl/server/state"
	"udm/env"
	"udm/env/hostfs"
	"udm/export/vhost/driver"
	"udm/targets/all"
	"udm/targets/crypt"
	"udm/volume"
)

var clones = flag.Int("clones", 20, "how many clones TestManyReplaced hands over")

var volumes = flag.Int("volumes", 4, "how many volumes TestVolumesReplaced hands over")

var busy = flag.Int("busy", 32, "how many I/Os are under way at once while a daemon is replaced")

var replacements = flag.Int("replacements", 3, "how often TestReplacedUnderLoad replaces the daemon")

// The environment of a daemon that can be replaced: its root; at which step of which
// process, "old: " or "new: ", it kills itself; a file in the root that is not there for the new
// process when it takes what follows the first group; that devices go over as many at once as in a
// daemon, and not one by one.
const replaceRoot, replaceDie, replaceHide, replaceMany = "UDM_TEST_REPLACE_ROOT", "UDM_TEST_REPLACE_DIE", "UDM_TEST_REPLACE_HIDE", "UDM_TEST_REPLACE_MANY"

// A test binary is also such a daemon, and its helper.
func init() {
	if os.Getenv(helperOf) != "" {
		if err := attach.Helper(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if root := os.Getenv(replaceRoot); root != "" {
		go runReplaced(root) // this goroutine has a thread of its own, to which a daemon's would have to return for every step
		select {}
	}
}

// runReplaced is the process of such a daemon.
func runReplaced(root string) {
	old, err := handover.Inherited()
	who := "old: "
	if old != nil {
		who = "new: "
	}
	together := 1
	if os.Getenv(replaceMany) != "" {
		together = 0
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err == nil {
		keys := &crypt.Ring{}
		err = Run(ctx, Config{Root: root, Program: "test", Types: all.TypesWithKeys(keys), Keys: keys, Mount: filepath.Join(root, "mnt"), Web: "localhost:0", FS: fullFS{root: root}, atOnce: together,
			Log:   slog.New(slog.NewTextHandler(os.Stderr, nil)),
			Ready: func(*service.Service) { fmt.Println("ready") }, Predecessor: old,
			Helper: []string{"env", helperOf + "=" + root, os.Args[0]},
			Successor: func(program string) *exec.Cmd {
				c := exec.Command(program)
				c.Stdout, c.Stderr = os.Stdout, os.Stderr
				return c
			},
			Step: func(name string) {
				hide(who + name)
				signed(who + name)
				if os.Getenv(replaceDie) == who+name {
					_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
					select {}
				}
			},
		})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, who, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// hide hides the file that is to be hidden from a new process.
func hide(step string) {
	path := filepath.Join(os.Getenv(replaceRoot), os.Getenv(replaceHide))
	if os.Getenv(replaceHide) == "" {
		return
	}
	switch step {
	case "new: the new one may serve":
		_ = os.Rename(path, path+".hidden") // if not, the test does not find the refusal
	case "old: the new one refuses":
		_ = os.Rename(path+".hidden", path)
	}
}

// signed checks that a new process has signed the lock when the old one is told that it serves: then
// whoever asked for it is answered.
func signed(step string) {
	if step != "new: the new one may serve" {
		return
	}
	text, err := os.ReadFile(filepath.Join(os.Getenv(replaceRoot), "lock"))
	if want := fmt.Sprintln(os.Getpid()); err != nil || string(text) != want {
		fmt.Fprintf(os.Stderr, "the lock is signed by %q, want %q: %v\n", text, want, err)
		os.Exit(1)
	}
}

// fullFS has no space while there is a file called full in the root.
type fullFS struct {
	hostfs.Disk
	root string
}

func (f fullFS) Create(path string) (hostfs.File, error) {
	if _, err := os.Stat(filepath.Join(f.root, "full")); err == nil {
		return nil, &os.PathError{Op: "create", Path: path, Err: syscall.ENOSPC}
	}
	return f.Disk.Create(path)
}

// helperOf is the environment of a helper: the root of its daemon.
const helperOf = "UDM_TEST_HELPER_OF"

// replaced is a daemon in another process, with clients in this one.
type replaced struct {
	*ctl.Client
	t    *testing.T
	root string
	cmd  *exec.Cmd
	out  *os.File
	log  said

	attached []string // devices with a loop device

	over    chan struct{}
	clients sync.WaitGroup
	longest atomic.Int64 // nanoseconds that an I/O took
	count   atomic.Int64
	turns   chan struct{} // an I/O under way has one
}

// Devices whose clients all use NBD: each is a group. The others have open files, too.
var alone = []string{"a", "b"}
var together = []string{"disk", "v"}

func startReplaced(t *testing.T, die string, env ...string) *replaced {
	t.Helper()
	r := &replaced{t: t, root: tempRoot(t), over: make(chan struct{}), turns: make(chan struct{}, *busy), log: said{to: t.Output()}}
	r.must(os.Mkdir(filepath.Join(r.root, "mnt"), 0o700))
	r.must(os.WriteFile(filepath.Join(r.root, "disk.img"), make([]byte, 1<<20), 0o600))
	r.start(die, env...)
	r.Client = ctl.NewClient(r.root)
	t.Cleanup(r.end)
	r.ready()
	ctx := context.Background()
	_, err := r.Create(ctx, ctl.Create{Name: "disk", Table: "0 2048 linear " + filepath.Join(r.root, "disk.img") + " 0"})
	r.must(err)
	r.must(r.CreatePool(ctx, volume.PoolSpec{Name: "p", Size: 8 << 20}))
	r.must(r.CreateVolume(ctx, ctl.CreateVolume{Pool: "p", Name: "v", Size: 1 << 20}))
	for _, name := range alone {
		path := filepath.Join(r.root, name+".img")
		r.must(os.WriteFile(path, make([]byte, 1<<20), 0o600))
		_, err := r.Create(ctx, ctl.Create{Name: name, Table: "0 2048 linear " + path + " 0"})
		r.must(err)
	}
	for _, name := range slices.Concat(together, alone) {
		_, err := r.Export(ctx, ctl.Export{Ref: ref(name), Path: r.socket(name)})
		r.must(err)
	}
	return r
}

// socket is where virtual machines use a device.
func (r *replaced) socket(name string) string { return filepath.Join(r.root, name+".sock") }

// start starts the process.
func (r *replaced) start(die string, env ...string) {
	r.t.Helper()
	r.cmd = exec.Command(os.Args[0])
	r.cmd.Env = append(append(os.Environ(), replaceRoot+"="+r.root, replaceDie+"="+die), env...)
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, out, err := os.Pipe()
	r.must(err)
	r.out = in
	r.cmd.Stdout, r.cmd.Stderr = out, &r.log
	r.must(r.cmd.Start())
	out.Close()
}

// said is what daemons have said.
type said struct {
	to io.Writer

	mu   sync.Mutex
	text bytes.Buffer  // guarded by mu
	more chan struct{} // guarded by mu; closed when there is more text; nil: nobody waits
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(p)
	if s.more != nil {
		close(s.more)
		s.more = nil
	}
	return s.to.Write(p)
}

// after returns what is said after a mark, or a channel that is closed when there is more.
func (s *said) after(mark string) (text string, more chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, text, ok := strings.Cut(s.text.String(), mark); ok {
		return text, nil
	}
	if s.more == nil {
		s.more = make(chan struct{})
	}
	return "", s.more
}

// figure waits for a figure in the log.
func (r *replaced) figure(name string) (n int) {
	text, more := r.log.after(" " + name + "=")
	for more != nil {
		<-more
		text, more = r.log.after(" " + name + "=")
	}
	_, err := fmt.Sscan(text, &n)
	r.must(err)
	return n
}

// ready waits until a daemon says that it is.
func (r *replaced) ready() {
	r.t.Helper()
	p := make([]byte, 6)
	if _, err := r.out.Read(p); err != nil || string(p) != "ready\n" {
		r.t.Fatalf("the daemon says %q, %v", p, err)
	}
}

// end ends the daemon that serves.
func (r *replaced) end() {
	r.Close()
	if v, err := r.pid(); err == nil {
		_ = syscall.Kill(v, syscall.SIGTERM)
	}
	_ = r.cmd.Wait() // it may have been replaced, or killed
	for p := make([]byte, 64); ; {
		if n, err := r.out.Read(p); n == 0 || err != nil { // nobody has the other end
			break
		}
	}
	for _, dir := range []string{"mnt", ctl.NumberedDir} { // if it was killed
		_ = syscall.Unmount(filepath.Join(r.root, dir), syscall.MNT_DETACH)
	}
	r.out.Close()
}

func (r *replaced) pid() (int, error) {
	c := ctl.NewClient(r.root)
	defer c.Close()
	v, err := c.Version(context.Background())
	return v.PID, err
}

func (r *replaced) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// disk is what a client uses.
type disk interface {
	read(p []byte, block int) error
	write(p []byte, block int) error
}

// ways is how many clients of a device there are at most, each with blocks of its own.
const blockSize, blocks, ways = 4096, 256, 5

type overNBD struct{ *nbdclient.Client }

func (c overNBD) read(p []byte, block int) error {
	return blk.ReadSectors(env.Real(), c, p, uint64(block)*blockSize/blk.SectorSize)
}

func (c overNBD) write(p []byte, block int) error {
	return blk.WriteSectors(env.Real(), c, p, uint64(block)*blockSize/blk.SectorSize, 0)
}

type overFile struct{ *os.File }

func (f overFile) read(p []byte, block int) error {
	_, err := f.ReadAt(p, int64(block)*blockSize)
	return err
}

func (f overFile) write(p []byte, block int) error {
	_, err := f.WriteAt(p, int64(block)*blockSize)
	return err
}

// overVhost is what a virtual machine does.
type overVhost struct{ *driver.Queue }

func (q overVhost) read(p []byte, block int) error {
	err := q.do(driver.Read, block)
	copy(p, q.Data(0))
	return err
}

func (q overVhost) write(p []byte, block int) error {
	copy(q.Data(0), p)
	return q.do(driver.Write, block)
}

func (q overVhost) do(op driver.Op, block int) error {
	if err := q.Submit(0, op, uint64(block)*blockSize/blk.SectorSize); err != nil {
		return err
	}
	q.Kick()
	if _, ok := q.Wait(); !ok {
		return fmt.Errorf("request %d failed", op)
	}
	return nil
}

// nbd returns a new NBD client.
func (r *replaced) nbd(name string) disk {
	r.t.Helper()
	c, err := nbdclient.Dial(context.Background(), "unix", filepath.Join(r.root, ctl.NBDSocket), nbdclient.Options{Export: name})
	r.must(err)
	r.t.Cleanup(func() { c.Close() })
	return overNBD{c}
}

// load has clients write and verify blocks of devices, each its own ones, until stop.
func (r *replaced) load(names ...string) {
	for _, name := range names {
		list := []disk{r.nbd(name), r.nbd(name)}
		if path := r.socket(name); exists(path) {
			v, err := driver.Open(path, driver.Options{Queues: 1, Slots: 1, Block: blockSize, Packed: name == alone[0]})
			r.must(err)
			r.t.Cleanup(v.Close)
			list = append(list, overVhost{v.Queues[0]})
		}
		if slices.Contains(together, name) || strings.HasPrefix(name, "vol") {
			f, err := os.OpenFile(filepath.Join(r.root, "mnt", name), os.O_RDWR, 0)
			r.must(err)
			r.t.Cleanup(func() { f.Close() })
			list = append(list, overFile{f})
		}
		if slices.Contains(r.attached, name) {
			list = append(list, r.open(name))
		}
		for i, d := range list {
			r.clients.Go(func() { r.use(d, i, rand.New(rand.NewPCG(uint64(i), 1))) })
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (r *replaced) use(d disk, first int, chance *rand.Rand) {
	var written [blocks]uint64
	p := make([]byte, blockSize)
	for n := uint64(1); ; n++ {
		select {
		case <-r.over:
			return
		default:
		}
		at := first + ways*chance.IntN(blocks/ways)
		began, err := r.once(d, at, n*chance.Uint64N(2), p, &written)
		if err != nil {
			r.t.Errorf("block %d: %v", at, err)
			return
		}
		r.count.Add(1)
		for took := int64(time.Since(began)); ; {
			if was := r.longest.Load(); took <= was || r.longest.CompareAndSwap(was, took) {
				break
			}
		}
	}
}

// once writes or, where n says so, reads and verifies a block, once it is this I/O's turn.
func (r *replaced) once(d disk, at int, n uint64, p []byte, written *[blocks]uint64) (began time.Time, err error) {
	r.turns <- struct{}{}
	defer func() { <-r.turns }()
	began = time.Now()
	if n == 0 {
		if err = d.read(p, at); err == nil && !bytes.Equal(p, filled(written[at])) {
			err = fmt.Errorf("it is not what was written: %x", p[:16])
		}
		return began, err
	}
	if err = d.write(filled(n), at); err == nil {
		written[at] = n
	}
	return began, err
}

func filled(n uint64) []byte {
	return bytes.Repeat(binary.NativeEndian.AppendUint64(nil, n), blockSize/8)
}

func (r *replaced) stop() {
	close(r.over)
	r.clients.Wait()
}

// run waits until the clients, which are other programs too, have done n more I/Os.
func (r *replaced) run(n int64) {
	for end := r.count.Load() + n; r.count.Load() < end && !r.t.Failed(); {
		time.Sleep(time.Millisecond)
	}
}

// replaceUnderLoad replaces the daemon as often as is wanted, and ends the clients.
func (r *replaced) replaceUnderLoad() {
	for range *replacements {
		r.run(100)
		r.must(r.replace(os.Args[0]))
		r.ready()
	}
	r.run(100)
	r.stop()
}

// New clients find all devices at any time while a daemon is replaced.
func TestNewClientsWhileReplaced(t *testing.T) {
	r := startReplaced(t, "")
	for range 4 {
		r.clients.Go(r.comeAndGo)
	}
	for range *replacements {
		r.must(r.replace(os.Args[0]))
		r.ready()
	}
	r.stop()
}

// comeAndGo has new clients come, one after the other, until stop.
func (r *replaced) comeAndGo() {
	for i := 0; ; i++ {
		select {
		case <-r.over:
			return
		default:
		}
		name := slices.Concat(together, alone)[i%(len(together)+len(alone))]
		c, err := nbdclient.Dial(context.Background(), "unix", filepath.Join(r.root, ctl.NBDSocket), nbdclient.Options{Export: name})
		if err != nil {
			r.t.Errorf("a new client of %s: %v", name, err)
			return
		}
		c.Close()
	}
}

func (r *replaced) replace(program string) error {
	_, err := r.Replace(context.Background(), ctl.Replace{Program: program})
	return err
}

// Clients of a daemon that is replaced under load get no error, and read what they wrote.
// Numbers, open counts and event numbers stay, and so does the address of the page.
func TestReplacedUnderLoad(t *testing.T) {
	r := startReplaced(t, "")
	r.attach(together...)
	r.load(slices.Concat(together, alone)...)
	r.encrypted()
	before, err := r.List(context.Background(), ctl.Query{})
	r.must(err)
	page := r.page()
	r.replaceUnderLoad()
	after, err := r.List(context.Background(), ctl.Query{})
	if fmt.Sprintf("%+v", after) != fmt.Sprintf("%+v", before) || err != nil {
		t.Errorf("%+v\nis now\n%+v, %v", before, after, err)
	}
	if now := r.page(); now != page {
		t.Errorf("the page is at %s, and was at %s", now, page)
	}
	if pid, err := r.pid(); pid == r.cmd.Process.Pid || err != nil {
		t.Errorf("process %d serves, %v", pid, err)
	}
	if keys, err := r.Keys(context.Background()); len(keys) != 1 || err != nil {
		t.Errorf("the keys are %v, %v", keys, err)
	}
	t.Logf("%d replacements, %d I/Os, the longest took %v", *replacements, r.count.Load(), time.Duration(r.longest.Load()).Round(time.Millisecond))
}

// encrypted makes a device whose key is only in the key store.
func (r *replaced) encrypted() {
	ctx, path := context.Background(), filepath.Join(r.root, "secret.img")
	r.must(os.WriteFile(path, make([]byte, 1<<20), 0o600))
	r.must(r.SetKey(ctx, ctl.SetKey{KeyName: ctl.KeyName{Type: "logon", Description: "one"}, Key: bytes.Repeat([]byte{7}, 64)}))
	_, err := r.Create(ctx, ctl.Create{Name: "secret", Table: "0 2048 crypt aes-xts-plain64 :64:logon:one 0 " + path + " 0"})
	r.must(err)
}

// page returns the address of the page, whose port the system has chosen.
func (r *replaced) page() string {
	r.t.Helper()
	ends, err := r.FrontEnds(context.Background())
	r.must(err)
	i := slices.IndexFunc(ends, func(f ctl.FrontEnd) bool { return f.Name == ctl.WebFrontEnd })
	if i < 0 || len(ends[i].Addresses) != 1 {
		r.t.Fatalf("no page among %+v", ends)
	}
	return ends[i].Addresses[0]
}

// Many clones of an image are handed over some at a time. Clients of them notice nothing.
func TestManyReplaced(t *testing.T) {
	r := startReplaced(t, "", replaceMany+"=1")
	image := filepath.Join(r.root, "image")
	r.must(os.WriteFile(image, make([]byte, 1<<20), 0o600))
	var names []string
	for i := range *clones {
		names = append(names, fmt.Sprint("clone", i))
	}
	r.must(r.Clone(context.Background(), volume.CloneSpec{Base: image, Names: names}))
	r.load(names[0], names[*clones/2], names[*clones-1])
	r.run(100)
	r.must(r.replace(os.Args[0]))
	r.ready()
	r.run(100)
	r.stop()
	if n := r.figure("devices"); n < *clones {
		t.Errorf("%d devices were handed over", n)
	}
	if n := r.figure("together"); n > 8 {
		t.Errorf("%d devices were handed over at once", n)
	}
	r.allLive(r.Client)
	t.Logf("%d clones, the longest I/O took %v", *clones, time.Duration(r.longest.Load()).Round(time.Millisecond))
}

// Volumes of a pool that virtual machines, NBD clients and programs with open files use go over
// together. Their clients notice nothing.
func TestVolumesReplaced(t *testing.T) {
	r, ctx := startReplaced(t, ""), context.Background()
	r.must(r.CreatePool(ctx, volume.PoolSpec{Name: "q", Size: uint64(*volumes+16) << 20}))
	var names []string
	for i := range *volumes {
		name := fmt.Sprint("vol", i)
		r.must(r.CreateVolume(ctx, ctl.CreateVolume{Pool: "q", Name: name, Size: 1 << 20}))
		_, err := r.Export(ctx, ctl.Export{Ref: ref(name), Path: r.socket(name)})
		r.must(err)
		names = append(names, name)
	}
	r.load(names...)
	r.replaceUnderLoad()
	r.allLive(r.Client)
	t.Logf("%d volumes, %d replacements, %d I/Os, the longest took %v", *volumes, *replacements, r.count.Load(), time.Duration(r.longest.Load()).Round(time.Millisecond))
}

// A daemon that cannot be replaced goes on, and says why.
func TestNotReplaced(t *testing.T) {
	r := startReplaced(t, "")
	r.load(slices.Concat(together, alone)...)
	text := filepath.Join(r.root, "program")
	r.must(os.WriteFile(text, []byte("no program"), 0o700))
	_, err := r.Export(context.Background(), ctl.Export{Ref: ref("disk"), Path: filepath.Join(r.root, "x")})
	r.must(err)
	for program, want := range map[string]string{
		text:            "cannot be started",
		text + "nosuch": "no such file",
		"/bin/false":    "the new process has ended (exit status 1)",
	} {
		if err := r.replace(program); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", program, err)
		}
		r.run(20)
	}
	full := filepath.Join(r.root, "full")
	r.must(os.WriteFile(full, nil, 0o600))
	if err := r.replace(os.Args[0]); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("on a full disk: %v", err)
	}
	r.run(100)
	r.must(os.Remove(full))
	r.must(r.replace(os.Args[0]))
	r.ready()
	r.run(100)
	r.stop()
}

// A daemon is not replaced while something that was written would end with its process: a disk in
// memory, or what a snapshot with store N keeps.
func TestMemoryIsNotReplaced(t *testing.T) {
	r := startReplaced(t, "")
	img := filepath.Join(r.root, "disk.img")
	for name, table := range map[string]string{
		"memory":   "0 2048 linear mem:1M 0",
		"snapshot": "0 2048 snapshot " + img + " " + filepath.Join(r.root, "cow.img") + " N 8",
	} {
		r.must(os.WriteFile(filepath.Join(r.root, "cow.img"), make([]byte, 1<<20), 0o600))
		_, err := r.Create(context.Background(), ctl.Create{Name: name, Table: table})
		r.must(err)
		if err := r.replace(os.Args[0]); err == nil || !strings.Contains(err.Error(), "memory of this process") {
			t.Errorf("%s: %v", name, err)
		}
		r.must(r.Remove(context.Background(), ctl.Remove{Ref: ref(name)}))
	}
	r.must(r.replace(os.Args[0]))
	r.ready()
}

// A new program refuses the saved state of a newer one, in words.
func TestNewerFormatIsRefused(t *testing.T) {
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), replaceRoot+"="+tempRoot(t))
	_, err := handover.Start(c, handover.NewGreeting("9.9", state.Format+1))
	if err == nil || !strings.Contains(err.Error(), "of udm 9.9") {
		t.Error(err)
	}
	root := tempRoot(t)
	if err := os.WriteFile(filepath.Join(root, "format.json"), []byte(`{"format":2}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Run(context.Background(), Config{Root: root, Types: all.Types(), Log: discard}); err == nil || !strings.Contains(err.Error(), "has format 2") {
		t.Error(err)
	}
}

// A group that the new process cannot take brings all back, those before it from that process.
func TestGroupRefused(t *testing.T) {
	r := startReplaced(t, "", replaceHide+"=b.img")
	r.load(slices.Concat(together, alone)...)
	r.run(20)
	if err := r.replace(os.Args[0]); err == nil || !strings.Contains(err.Error(), "b.img") {
		t.Errorf("it says %v", err)
	}
	r.ready() // it serves again
	r.run(100)
	r.stop()
	if pid, err := r.pid(); pid != r.cmd.Process.Pid || err != nil {
		t.Errorf("process %d serves, %v", pid, err)
	}
}

// When either process is killed after a step, the other one serves if it is to. Clients that
// are not in the killed process notice nothing, and new ones find all devices.
func TestKilledWhileReplaced(t *testing.T) {
	all := slices.Concat(together, alone)
	for i, c := range []struct {
		die   string
		goOn  []string // devices whose clients do; nil: nobody serves
		again bool     // the old process has handed something over
	}{
		// Every other one is for long runs only.
		{"new: the new one is prepared", all, true},
		{"new: the new one has started", all, false},
		{"new: the new one can serve", all, true},
		{"new: the new one has the bundle", all, true},
		{"new: the new one may serve", alone, true},
		{"new: the new one has a group", alone, true},
		{"new: the new one may serve a group", []string{"b"}, true},
		{"new: the new one can serve a group", alone, true},
		{"old: the old one is still", nil, false},
		{"old: the old one has greeted", nil, false},
		{"old: the new one is ready: take", together, false},
		{"old: the old one is calm", nil, false},
		{"old: the old one has closed: next", together, false},
		{"old: the old one has closed: take", nil, false},
		{"old: the new one is ready: next", []string{"disk", "v", "a"}, false},
		{"old: a group is still", together, false},
		{"old: the old one has handed over all", all, false},
	} {
		if testing.Short() && i%2 == 1 {
			continue
		}
		t.Run(c.die, func(t *testing.T) {
			r := startReplaced(t, c.die)
			if c.goOn == nil {
				_ = r.replace(os.Args[0])
				r.comesAgain()
				return
			}
			r.load(c.goOn...)
			r.run(20)
			if err := r.replace(os.Args[0]); err == nil {
				t.Error("it says that it was replaced")
			}
			newServes := strings.HasPrefix(c.die, "old")
			if newServes || c.again {
				r.ready()
			}
			r.run(100)
			r.stop()
			if pid, err := r.pid(); err != nil || newServes == (pid == r.cmd.Process.Pid) {
				t.Errorf("process %d serves, %v", pid, err)
			}
			r.allLive(r.Client)
		})
	}
}

// allLive checks that every device serves, to new clients as well.
func (r *replaced) allLive(s interface {
	List(context.Context, ctl.Query) ([]ctl.Device, error)
}) {
	r.t.Helper()
	ds, err := s.List(context.Background(), ctl.Query{})
	r.must(err)
	if len(ds) < len(together)+len(alone) {
		r.t.Errorf("there are %d devices", len(ds))
	}
	for _, d := range ds {
		if !d.Live {
			r.t.Errorf("%s waits: %s", d.Name, d.Waiting)
		}
	}
}

// comesAgain sees that nobody serves and holds a lock, so that a service manager's next
// daemon does.
func (r *replaced) comesAgain() {
	r.t.Helper()
	_ = r.cmd.Wait() // killed, or replaced
	for p := make([]byte, 64); ; {
		if n, err := r.out.Read(p); n == 0 || err != nil { // the other process has ended
			break
		}
	}
	if _, err := r.pid(); err == nil {
		r.t.Error("a daemon serves")
	}
	s, err := service.New(service.Config{Root: r.root, Types: all.Types()})
	r.must(err)
	r.must(s.Restore(context.Background()))
	r.allLive(s)
	r.must(s.Close())
}
