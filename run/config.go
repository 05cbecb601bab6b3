package run

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Config configures a run.
type Config struct {
	Root    string   // of the daemon
	Disks   []Disk   // shown as /dev/NAME
	Command []string // the program and its arguments
	// Starter is a command that calls [Exec] with the arguments that are appended.
	Starter []string
	// AsRoot tells the program that it is root.
	AsRoot bool
	// DevFiles lets programs make ordinary files in /dev, as Linux does. Otherwise that
	// fails: a device's name with a typing error would lose what is written.
	DevFiles bool
	// Wait waits for processes that the program leaves behind, instead of ending them.
	Wait bool
	// Major is the major number of mapped devices; 0: one that the machine does not use.
	Major uint32
	// Daemon is the process of a daemon that was started for this run, or 0.
	Daemon int
}

// Disk is a file that programs see as the block device /dev/NAME.
type Disk struct{ Name, Path string }

// NestedEnv is set for programs that run under a supervisor.
const NestedEnv = "UDM_RUN"

// Reported is an exit code whose reason has been printed.
type Reported int

func (r Reported) Error() string { return fmt.Sprintf("exit code %d", int(r)) }

// Exit codes of what prevents a program from running, as of env(1).
const (
	CannotRun = 126
	NotFound  = 127
)

var diskName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]*$`)

// reserved are names of /dev that no disk may have.
var reserved = regexp.MustCompile(`^(dm-[0-9]+|mapper|null|zero|full|u?random|tty|console|ptmx|pts|shm|mqueue|log|fd|std(in|out|err))$`)

// ParseDisk parses NAME=FILE.
func ParseDisk(text string) (Disk, error) {
	name, file, ok := strings.Cut(text, "=")
	switch {
	case !ok || file == "":
		return Disk{}, fmt.Errorf("--disk %s: give NAME=FILE", text)
	case !diskName.MatchString(name) || reserved.MatchString(name):
		return Disk{}, fmt.Errorf("--disk %s: %q cannot be the name of a disk; give one like sda", text, name)
	}
	path, err := filepath.Abs(file)
	if err != nil {
		return Disk{}, err
	}
	st, err := os.Stat(path)
	switch {
	case err != nil:
		return Disk{}, fmt.Errorf("--disk %s: %w", text, err)
	case !st.Mode().IsRegular():
		return Disk{}, fmt.Errorf("--disk %s: %s is not a regular file; give a disk image", text, path)
	}
	path, err = filepath.EvalSymlinks(path)
	return Disk{Name: name, Path: path}, err
}

// ParseDisks parses several, with different names and files.
func ParseDisks(texts []string) (disks []Disk, err error) {
	for _, text := range texts {
		d, err := ParseDisk(text)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(disks, func(o Disk) bool { return o.Name == d.Name || o.Path == d.Path }) {
			return nil, fmt.Errorf("--disk %s: name or file is given twice", text)
		}
		disks = append(disks, d)
	}
	return disks, nil
}
