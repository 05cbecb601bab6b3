package watchdog

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// userHZ is the unit of times in /proc.
const userHZ = time.Second / 100

// process is a line of /proc/PID/stat.
type process struct {
	pid, parent int
	used        time.Duration // by it and by children that it has waited for
}

// look looks at a process and all below it; at those below alone if it is this one,
// which runs while it looks.
func look(root int) (s sample) {
	all := processes()
	for pid, p := range all {
		if below(all, pid, root) && pid != os.Getpid() {
			s.seen = true
			s.used += p.used
			s.runs = s.runs || runs(pid)
		}
	}
	return s
}

// below reports whether a process is root or has come from it.
func below(all map[int]process, pid, root int) bool {
	for ; pid > 1; pid = all[pid].parent {
		if pid == root {
			return true
		}
	}
	return false
}

func processes() map[int]process {
	all := make(map[int]process)
	paths, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is good
	for _, path := range paths {
		if words := stat(path); len(words) > 16 {
			p := process{pid: number(filepath.Base(filepath.Dir(path))), parent: number(words[1])}
			for _, w := range words[11:15] { // utime, stime, cutime, cstime
				p.used += time.Duration(number(w)) * userHZ
			}
			all[p.pid] = p
		}
	}
	return all
}

// runs reports whether a thread of a process runs or waits for a processor.
func runs(pid int) bool {
	paths, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/stat")
	for _, path := range paths {
		if words := stat(path); len(words) > 0 && words[0] == "R" {
			return true
		}
	}
	return false
}

// stat gives the words behind the name, which may hold blanks and parentheses; none
// when the process is gone.
func stat(path string) []string {
	text, _ := os.ReadFile(path)
	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
}

func number(word string) int {
	n, _ := strconv.Atoi(word)
	return n
}

func kill(cmd *exec.Cmd) {
	pid := cmd.Process.Pid
	if a := cmd.SysProcAttr; a != nil && a.Setpgid {
		pid = -pid
	}
	_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
}
