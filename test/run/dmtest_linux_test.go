package run

import (
	"flag"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"udm/test/need"
)

var dmtest = flag.String("dmtest", "", "the source of dmtest-python, whose tests of caches are run")

// caches are dmtest's tests of caches that do not need a newer kernel than the one here.
var caches = []string{
	"small_config",
	"expand_origin_with_reload",
	"shrink_origin_with_reload_drops_mappings",
	"shrink_origin_with_reload_should_fail_if_blocks_dirty",
	"shrink_origin_with_teardown_drops_mappings",
	"shrink_origin_with_teardown_should_fail_if_blocks_dirty",
}

// TestDmtest runs dmtest's tests of caches, unchanged, with Debian's dmsetup and with udm
// dmsetup.
func TestDmtest(t *testing.T) {
	if *dmtest == "" {
		return // make test-dmtest has a source
	}
	need.Tools(t, "dmsetup", "cache_check", "python3", "journalctl")
	for name, path := range map[string]string{"dmsetup": "", "udm dmsetup": "$PWD/ours:"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.copyDmtest()
			code, out := r.try("PATH=" + path + "$PATH\n" + dmtestScript)
			for _, test := range caches {
				if !regexp.MustCompile(`(?m)^ *` + test + ` +PASS `).MatchString(out) {
					t.Error(test, "does not pass")
				}
			}
			if code != 0 || t.Failed() {
				t.Errorf("exit code %d\n%s\n%s", code, out, r.do("tail -n 100 log daemon.log"))
			}
		})
	}
}

// dmtestScript has a daemon; udm dmsetup is followed by what udev does for nodes.
const dmtestScript = `set -e
	mkdir ours
	cat >ours/dmsetup <<'END'
#!/bin/sh
$UDM dmsetup "$@"
code=$?
/sbin/dmsetup mknodes
exit $code
END
	chmod +x ours/dmsetup
	truncate -s 256M meta
	truncate -s 5G data
	cat >config.toml <<END
metadata_dev = '$PWD/meta'
data_dev = '$PWD/data'
disable_by_id_check = true
END
	cp ../dmtest/test_dependencies.toml .
	$UDM daemon 2>daemon.log & daemon=$!
	trap 'kill $daemon; wait $daemon' EXIT
	until $UDM ls >/dev/null 2>&1; do kill -0 $daemon; done
	export DMTEST_RESULT_SET=udm PYTHONPATH=../dmtest/src PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
	$UDM run --disk sda=meta --disk sdb=data -- python3 -m dmtest run --log --rx '^/cache/' 2>log`

// copyDmtest puts dmtest beside the user's directory.
func (r *rig) copyDmtest() {
	to := filepath.Join(filepath.Dir(r.dir), "dmtest")
	out, err := exec.Command("sh", "-ec", `mkdir "$2"; cp -r "$1"/src "$1"/test_dependencies.toml "$2"; chmod -R a+rX "$2"`, "sh", *dmtest, to).CombinedOutput()
	if err != nil {
		r.Fatalf("%v: %s", err, out)
	}
}
