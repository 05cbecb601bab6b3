package run

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"udm/test/need"
)

// TestTraps runs the functions of testdata/traps.py, all in one program.
func TestTraps(t *testing.T) {
	need.Tools(t, "python3")
	r := newRig(t)
	text, err := os.ReadFile("testdata/traps.py")
	r.must(err)
	r.must(os.WriteFile(r.dir+"/traps.py", text, 0o644))
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^def (\w+)\(\):`).FindAllStringSubmatch(string(text), -1) {
		names = append(names, m[1])
	}
	if len(names) < 12 {
		t.Fatalf("only %v", names)
	}
	r.want(`truncate -s 512M a.img; truncate -s 1M b.img
		$UDM run --private --disk sda=a.img --disk sdb=b.img -- python3 traps.py `+strings.Join(names, " "), "")
}

// TestProcesses: what happens to processes, and what their exit codes become.
func TestProcesses(t *testing.T) {
	r := newRig(t)
	const run = `$UDM run --private `
	for script, want := range map[string]string{
		run + `-- sh -c "exit 7"; echo $?`:                                                                                                    "7",
		run + `-- sh -c 'kill -TERM $$'; echo $?`:                                                                                             "143",
		run + `-- /no/such/program 2>&1; echo $?`:                                                                                             "udm run: fork/exec",
		run + `-- sh -c "setsid sleep 98765 & exit 3"`:                                                                                        "",
		run + `--wait -- sh -c "(sleep 0.2; echo late) & echo early"`:                                                                         "early\nlate",
		run + `-- sh -c "(trap '' TERM; exec sleep 3) & udm ls --root nowhere" 2>&1 | grep -c "no daemon"`:                                    "1",
		run + `-- $UDM run -- sh -c 'dmsetup create n --table "0 8 zero"; dmsetup ls' | cut -f1`:                                              "n",
		run + `-- sh -c 'echo x >/dev/file' 2>&1 | grep -c "Permission denied"`:                                                               "1",
		run + `--dev-files -- sh -c 'echo x >/dev/file; cat /dev/file'`:                                                                       "x",
		run + `-- $UDM run --disk a=b -- true 2>&1; echo $?`:                                                                                  "udm: this runs under udm run already, and uses its devices; leave out --disk and --private here\n1",
		run + `-- sh -c 'udm run -- sh -c "exit 9"'; echo $?`:                                                                                 "9",
		run + `-- sh -c 'grep -w device-mapper /proc/devices | cut -b1-3' | grep -vwFf <(sed '1,/Block/d' /proc/devices | cut -b1-3) | wc -l`: "1",
	} {
		_, got := r.try(script)
		if strings.HasPrefix(want, "udm run:") {
			if !strings.HasPrefix(got, "udm run: ") || !strings.HasSuffix(got, "\n127") {
				t.Errorf("%s\nprints %q", script, got)
			}
			continue
		}
		if got != want {
			t.Errorf("%s\nprints %q, want %q", script, got, want)
		}
	}
	if out := r.do(`ps -u $(id -u) -o args= | grep -v -e "ps -u" -e grep -e bash || true`); strings.Contains(out, "sleep 98765") || strings.Contains(out, "daemon --root "+r.dir) {
		t.Errorf("left behind:\n%s", out)
	}
}

// TestKilledSupervisor: program, daemon and mount end with a supervisor that is killed.
func TestKilledSupervisor(t *testing.T) {
	r := newRig(t)
	r.do(`$UDM run --private -- sh -c 'echo $PPID >pid; echo "$UDM_RUN" >where; exec sleep 98765' &
		until test -s where; do sleep 0.01; done
		kill -9 $(cat pid)
		while grep -qF "$(cat where)" /proc/self/mounts || pgrep -u $(id -u) -f "^sleep 98765" >/dev/null; do sleep 0.01; done`)
}

// TestRunningDaemon: with a daemon that runs, devices and links stay from one run to the
// next, and disks keep their numbers.
func TestRunningDaemon(t *testing.T) {
	r := newRig(t)
	r.want(`truncate -s 64M a.img; truncate -s 64M b.img
		$UDM daemon 2>/dev/null & daemon=$!
		until $UDM ls >/dev/null 2>&1; do sleep 0.05; done
		$UDM run --disk sdb=b.img --disk sda=a.img -- sh -ec 'dmsetup create d --table "0 2048 linear /dev/sda 0"; ln -s mapper/d /dev/link; echo data >/dev/link'
		$UDM run --disk sda=a.img -- sh -ec 'head -c 4 /dev/link; echo; dmsetup remove d; ls /dev/mapper'
		$UDM dmsetup ls
		head -c 4 a.img
		kill $daemon; wait $daemon`, "data\ncontrol\nNo devices found\ndata")
}

// TestOtherNamespace: a daemon whose files cannot be seen is not used.
func TestOtherNamespace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("only root has another mount namespace for the daemon")
		return
	}
	r := newRig(t)
	r.daemon("root")
	if code, out := r.try(`$UDM run -- true`); code != 1 || !strings.Contains(out, "cannot be seen here") {
		t.Errorf("exit code %d: %s", code, out)
	}
}
