//go:build unix

package luks

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"udm/env"
)

var suite = flag.String("cryptsetup", "", "the source of cryptsetup, whose images of LUKS disks are opened")

// known are passphrases of cryptsetup's images, from its tests.
var known = []string{"compatkey", "aaa", "blabla", "blablabl", "albalbal", "aaablabl", "password", "93R4P4pIqAH8", "mymJeD8ivEhE", "bbb"}

// unsupported are parts of the errors for what docs/differences.md says udm does not have.
var unsupported = []string{"there is no cipher", "there is no mode", "there is no hash", "is not supported", "has no hash"}

// TestImagesOfCryptsetup opens the images of LUKS disks that cryptsetup's tests ship, as
// cryptsetup does: with the same passphrases, to the same volume key.
func TestImagesOfCryptsetup(t *testing.T) {
	if *suite == "" {
		return // make test-cryptsetup has a source
	}
	for _, path := range images(t, filepath.Join(*suite, "tests")) {
		t.Run(filepath.Base(path), func(t *testing.T) { compareImage(t, path) })
	}
}

// images unpacks all that may be a LUKS disk or its header.
func images(t *testing.T, dir string) (paths []string) {
	t.Helper()
	to := t.TempDir()
	script := `cd "$1" && for f in luks1-images conversion_imgs luks2_mda_images luks2_header_requirements; do tar xJf $f.tar.xz --no-same-owner -C "$2"; done
		for f in compatimage*.img.xz compatv10image.img.xz luks2_*.img.xz blkid-luks2-pv.img.xz valid_header_file.xz evil_hdr-*.xz; do xz -dkc $f >"$2/${f%.xz}"; done`
	if out, err := exec.Command("sh", "-ec", script, "sh", dir, to).CombinedOutput(); err != nil {
		t.Fatalf("unpacking the images: %v\n%s", err, out)
	}
	key, err := os.ReadFile(filepath.Join(to, "luks1-images", "keyfile1"))
	must(t, err)
	known = append(known, string(key))
	must(t, filepath.WalkDir(to, func(path string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && exec.Command("cryptsetup", "isLuks", path).Run() == nil {
			paths = append(paths, path)
		}
		return err
	}))
	if len(paths) < 40 {
		t.Errorf("only %d images", len(paths))
	}
	return paths
}

func compareImage(t *testing.T, path string) {
	c, err := Open(env.Real(), device(t, path), Options{})
	opened := 0
	for _, pass := range known {
		want, lacking := volumeKey(t, path, pass)
		var got []byte
		wrong := err
		if err == nil {
			var k *Key
			if k, wrong = c.Unlock([]byte(pass), AnySlot); wrong == nil {
				got = bytes.Clone(k.secret.Bytes())
				k.Close()
			}
		}
		switch {
		case bytes.Equal(got, want):
		case lacking: // udm has compared the key with the digest in the header
			t.Logf("%.20q: cryptsetup lacks the cipher here, udm says %v", pass, wrong)
		case want != nil && wrong != nil && isUnsupported(wrong):
			t.Logf("%q: %v", pass, wrong)
		default:
			t.Errorf("%.20q: the key has %d bytes, cryptsetup's %d, and they differ; %v", pass, len(got), len(want), wrong)
		}
		if got != nil {
			opened++
		}
	}
	t.Logf("%d passphrases open it; %v", opened, err)
}

func isUnsupported(err error) bool {
	for _, text := range unsupported {
		if strings.Contains(err.Error(), text) {
			return true
		}
	}
	return false
}

// volumeKey is what cryptsetup finds, nil for nothing, and whether it lacks the cipher: it has not
// all by itself, and wants device mapper for the others.
func volumeKey(t *testing.T, path, pass string) (key []byte, lacking bool) {
	t.Helper()
	to := filepath.Join(t.TempDir(), "key")
	c := exec.Command("cryptsetup", "-q", "luksDump", "--dump-volume-key", "--volume-key-file", to, "--key-file", "-", path)
	c.Stdin = strings.NewReader(pass)
	var said bytes.Buffer
	c.Stderr = &said
	if c.Run() != nil {
		return nil, strings.Contains(said.String(), "Cannot initialize device-mapper")
	}
	key, err := os.ReadFile(to)
	must(t, err)
	return key, false
}
