// Package imports holds the rule of the layers: each package knows only
// packages that come earlier in the list of ARCHITECTURE.md.
package imports

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// layers lists, for each folder, the folders of the project that its packages
// (tests excepted) may import beside their own; a name with /. is one package
// without those in it. The first match counts.
var layers = []struct {
	folder string
	may    []string
}{
	{"internal", []string{"internal"}},
	{"env", []string{"internal"}},
	{"archive", nil}, // stores and snapshots in them: bytes
	{"blk/leaf", []string{"internal", "env", "blk", "dm", "archive"}}, // an opener for dm.Control
	{"blk", []string{"internal", "env", "blk"}},
	{"pdata", []string{"internal", "env", "blk"}},
	{"dm", []string{"internal", "env", "blk"}},
	{"targets", []string{"internal", "env", "blk", "pdata", "dm"}},
	{"lvm/activation", []string{"dm", "targets", "lvm", "volume", "ctl/."}}, // a client of the daemon
	{"lvm", []string{"internal", "env", "blk", "dm", "targets"}},
	{"luks", []string{"internal", "env", "blk", "dm", "targets"}},
	{"volume", []string{"env", "blk", "dm", "targets"}},
	{"export/internal/virtq", nil}, // rings know bytes only
	{"export", []string{"internal", "env", "blk"}},
	{"ctl/server/handover", nil}, // bytes and files
	{"ctl/server/frontend", []string{"ctl/.", "ctl/server/handover"}},
	{"ctl/server/events", []string{"env", "ctl/."}},
	{"ctl/server/exports", []string{"dm", "export"}},
	{"ctl/server/state", []string{"env", "blk", "dm", "volume", "ctl/server/handover"}},
	{"ctl/server/attach", []string{"env", "blk", "dm", "export", "ctl/.", "ctl/server/exports", "ctl/server/frontend", "ctl/server/handover"}},
	{"ctl/server/vhostuser", []string{"env", "dm", "export", "ctl/.", "ctl/server/exports", "ctl/server/handover"}},
	{"ctl/server/service", []string{"env", "blk", "dm", "targets", "volume", "export", "ctl/.", "ctl/server/events", "ctl/server/exports", "ctl/server/frontend", "ctl/server/handover", "ctl/server/state", "ctl/server/attach", "ctl/server/vhostuser"}},
	{"ctl/server/protocol", []string{"dm", "ctl/."}},
	{"packaging", nil}, // the rules of Prometheus, as text
	{"ctl/server/metrics", []string{"blk", "pdata", "dm", "targets", "volume", "packaging", "ctl/."}},
	{"ctl/server/web", []string{"volume", "ctl/.", "ctl/server/metrics"}},
	{"ctl/server", []string{"internal", "env", "blk", "dm", "targets", "volume", "export", "ctl"}}, // the daemon
	{"ctl", []string{"internal", "blk", "dm", "volume"}},
	{"run/dmioctl", []string{"blk"}},
	{"run/blkioctl", nil},
	{"run/notify", nil},
	{"run/devfs", []string{"blk"}},
	{"run", []string{"blk", "dm", "ctl/.", "run"}}, // a client of the daemon
	{"udmtest", []string{"internal", "env", "blk", "export"}},
	{"", []string{"internal", "env", "blk", "dm", "targets", "export"}}, // the library that is one import
	{"cmd", []string{"internal", "env", "archive", "blk", "pdata", "dm", "targets", "lvm", "luks", "volume", "export", "ctl", "run", ""}},
	{"bench", []string{"internal", "env", "archive", "blk", "pdata", "dm", "targets", "volume", "export", "ctl", ""}},
	{"containers", []string{"blk", "dm", "targets", "volume", "ctl/.", "test"}}, // clients of the daemon
	{"sim", []string{"internal", "env", "blk", "pdata", "dm", "targets"}},
	{"test", []string{"internal", "env", "blk", "pdata", "dm", "targets", "lvm", "luks", "volume", "export", "ctl", "test"}},
}

// core are the folders that import nothing from elsewhere but golang.org/x/sys, and
// golang.org/x/crypto for what the standard library lacks of the ciphers and key
// derivations that encrypted disks have: twofish, poly1305, chacha20poly1305, argon2, ripemd160, blake2.
var core = []string{"env", "blk", "pdata", "dm", "targets", "luks", "internal"}

type pkg struct {
	ImportPath string
	Imports    []string
	Standard   bool
}

// list is the packages of the module and of those inside it.
func list(t *testing.T) []pkg {
	return append(append(listIn(t, "../.."), listIn(t, "../../bench")...), listIn(t, "../../containers")...)
}

func listIn(t *testing.T, dir string) (ps []pkg) {
	c := exec.Command("go", "list", "-json=ImportPath,Imports,Standard", "./...")
	c.Dir, c.Stderr = dir, t.Output()
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return ps
		} else if err != nil {
			t.Fatal(err)
		}
		ps = append(ps, p)
	}
}

func under(path, folder string) bool {
	if folder == "" {
		return path == "udm"
	}
	return path == "udm/"+folder || strings.HasPrefix(path, "udm/"+folder+"/")
}

func within(path string, folders []string) bool {
	for _, f := range folders {
		if under(path, f) || path == "udm/"+strings.TrimSuffix(f, "/.") {
			return true
		}
	}
	return false
}

func TestLayers(t *testing.T) {
	for _, p := range list(t) {
		may, known := allowed(p.ImportPath)
		if !known {
			t.Errorf("%s is in no layer: give its folder a place in this test and in ARCHITECTURE.md", p.ImportPath)
		}
		for _, i := range p.Imports {
			if (i == "udm" || strings.HasPrefix(i, "udm/")) && !within(i, may) {
				t.Errorf("%s imports %s, which comes later in the list of layers", p.ImportPath, i)
			}
		}
	}
}

func allowed(path string) ([]string, bool) {
	for _, l := range layers {
		if under(path, l.folder) {
			return append([]string{l.folder}, l.may...), true
		}
	}
	return nil, false
}

// formats are the packages of the core that may import what reads a format of disks:
// the opener of leaves, which nothing else stands on.
var formats = map[string]string{"udm/blk/leaf": "github.com/klauspost/compress/zstd"}

// The core imports the standard library, golang.org/x/sys and golang.org/x/crypto alone.
func TestCoreDependencies(t *testing.T) {
	for _, p := range list(t) {
		if !within(p.ImportPath, core) {
			continue
		}
		for _, i := range p.Imports {
			first, _, _ := strings.Cut(i, "/")
			if strings.Contains(first, ".") && !strings.HasPrefix(i, "golang.org/x/sys/") && !strings.HasPrefix(i, "golang.org/x/crypto/") && formats[p.ImportPath] != i {
				t.Errorf("%s imports %s: the core uses the standard library, golang.org/x/sys and golang.org/x/crypto only", p.ImportPath, i)
			}
		}
	}
}
