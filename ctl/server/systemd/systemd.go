// Package systemd is the communication between a service manager and a daemon. The
// daemon reports its state on the datagram socket in NOTIFY_SOCKET (sd_notify(3));
// the manager passes on the sockets that it opened (sd_listen_fds(3)). Without a
// manager nothing is sent.
package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

// States that a daemon reports.
const (
	Ready     = "READY=1" // also ends Reloading
	Reloading = "RELOADING=1"
	Stopping  = "STOPPING=1"
	MainPID   = "MAINPID=" // and the id of the process that is the daemon from now on
)

// Notify reports a state to the manager.
func Notify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	_, err = c.Write([]byte(state))
	return errors.Join(err, c.Close())
}

// firstFD is the first descriptor passed on by the manager.
const firstFD = 3

// Listeners returns the sockets passed on to this process, by their names
// (FileDescriptorName= of a socket unit). Later calls, and child processes, get none.
func Listeners() (map[string]net.Listener, error) {
	pid, fds, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if err := os.Unsetenv(name); err != nil {
			return nil, err
		}
	}
	if pid != strconv.Itoa(os.Getpid()) {
		return nil, nil // for another process
	}
	n, err := strconv.Atoi(fds)
	if err != nil || n < 0 {
		return nil, fmt.Errorf("LISTEN_FDS is %q, not a number of sockets", fds)
	}
	return listeners(firstFD, n, strings.Split(names, ":"))
}

// listeners converts n descriptors to listeners and closes the descriptors.
func listeners(first, n int, names []string) (map[string]net.Listener, error) {
	all := make(map[string]net.Listener)
	var errs []error
	for i := range n {
		name := "unknown" // as sd_listen_fds_with_names calls it
		if i < len(names) && names[i] != "" {
			name = names[i]
		}
		f := os.NewFile(uintptr(first+i), name)
		l, err := net.FileListener(f)
		errs = append(errs, f.Close())
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("socket %d, %s: %w", first+i, name, err))
		case all[name] != nil:
			errs = append(errs, l.Close(), fmt.Errorf("two sockets are named %s", name))
		default:
			all[name] = l
		}
	}
	return all, errors.Join(errs...)
}
