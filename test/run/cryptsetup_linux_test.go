package run

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"udm/test/need"
)

var cryptsetupSource = flag.String("cryptsetup", "", "folder of cryptsetup's source, whose scripts are run")

// TestCryptsetup runs cryptsetup's own test scripts, unchanged, on udm's devices. Of each
// testdata/cryptsetup.txt says the exit code and how often it prints a text.
func TestCryptsetup(t *testing.T) {
	if *cryptsetupSource == "" {
		return // TestPrograms uses cryptsetup, too
	}
	need.Tools(t, "cryptsetup", "integritysetup", "veritysetup", "nbdkit", "gcc", "jq", "xz", "xxd")
	text, err := os.ReadFile("testdata/cryptsetup.txt")
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	r.cryptsetupSuite()
	for line := range strings.Lines(string(text)) {
		var name string
		var code, times int
		if _, err := fmt.Sscan(line, &name, &code, &times); err != nil {
			continue // a comment
		}
		_, said, _ := strings.Cut(strings.TrimSpace(line), "  ")
		t.Run(name, func(t *testing.T) {
			sub := *r
			sub.TB = t
			got, out := sub.try(fmt.Sprintf(cryptsetupScript, name))
			if n := strings.Count(out, said); got != code || n != times {
				t.Errorf("exit code %d, %d times %q; want code %d, %d times\n%s", got, n, said, code, times, tail(out, 60))
			}
		})
	}
}

// cryptsetupSuite puts the scripts beside the user's directory, with the programs that they need.
func (r *rig) cryptsetupSuite() {
	to := filepath.Join(filepath.Dir(r.dir), "suite")
	out, err := exec.Command("sh", "-ec", `mkdir "$2"; cp -r "$1/tests" "$1/lib" "$2"; cd "$2/tests"
		gcc -o differ differ.c
		gcc -D_GNU_SOURCE -DHAVE_SYS_SYSMACROS_H -I../lib -o unit-utils-io unit-utils-io.c ../lib/utils_io.c
		chmod -R a+rX "$2"`, "sh", *cryptsetupSource, to).CombinedOutput()
	if err != nil {
		r.Fatalf("%v: %s", err, out)
	}
}

// cryptsetupScript runs a script in a copy of the suite. Its loop devices are devices of udm on NBD
// servers of the same files: as those of the kernel they leave the files' locks alone, for which
// cryptsetup would wait, and have blocks of 512 bytes. udm's targets need no modules.
const cryptsetupScript = `suite=$(mktemp -d); trap 'rm -rf $suite' EXIT
	cp -r ../suite/* $suite
	losetup() {
		case "$1" in
		-f) local n=0; while [ -e /dev/mapper/loop$n ]; do n=$((n + 1)); done; echo /dev/mapper/loop$n ;;
		-d) dmsetup remove "$2" ;;
		*) local at pid; at=$(mktemp -d) && mkfifo $at/pid || return
			nbdkit -f --exit-with-parent -P $at/pid -U $at/sock --filter=blocksize-policy file "$(realpath "$2")" blocksize-preferred=512 >/dev/null 2>&1 & read pid <$at/pid
			dmsetup create "${1##*/}" --table "0 $(($(stat -c %%s "$2") / 512)) linear nbd+unix:///?socket=$at/sock 0" ;;
		esac
	}
	modprobe() { local module; for module; do case "$module" in dm-*|dm_*) ;; *) return 1 ;; esac; done; }
	export -f losetup modprobe
	cd $suite/tests && CRYPTSETUP_PATH=/sbin exec timeout 900 $UDM run --private --as-root -- ./%s </dev/null 2>&1`
