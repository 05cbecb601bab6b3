package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"

	"github.com/spf13/cobra"

	"udm/ctl"
	"udm/ctl/server"
	"udm/ctl/server/handover"
	"udm/ctl/server/service"
	"udm/ctl/server/systemd"
	"udm/export/nbd"
	"udm/targets/all"
	"udm/targets/crypt"
)

// daemonFlags are the options of udm daemon.
type daemonFlags struct {
	listen, mount     string
	metrics, receive  string
	web               string
	webOperations     bool
	log, logFormat    string
	cert, key, ca     string
	readOnly, verbose bool
	replace           bool
	maxConns          int
	params            map[string]string
}

func daemonCommand() *cobra.Command {
	var f daemonFlags
	cmd := &cobra.Command{
		Use:   "daemon",
		Short: "Run the daemon, which keeps and serves the devices, in the foreground",
		Long: `daemon runs the mapped devices of one root directory. It takes commands on
ROOT/control.sock. It serves every device that has a table to NBD clients on
ROOT/nbd.sock, under the name of the device.

The devices are saved. A restarted daemon restores all of them, even after a crash.
On SIGTERM or Ctrl-C, the daemon finishes the I/O in flight, flushes the devices and
exits with code 0, after 10 seconds at most. A second signal stops it at once. The
log says what could not be finished.

daemon --replace has the daemon that is running start this program in its place, with the
options that it has itself, and hand over its devices and their clients. These notice a
short pause. If the new program cannot take over, the old daemon goes on.`,
		Example: `  udm daemon
  udm daemon --root /tmp/lab
  udm daemon --root /tmp/lab --replace
  udm daemon --listen :10809 --tls-cert server.pem --tls-key server-key.pem --tls-ca clients.pem`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDaemon(cmd, f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.listen, "listen", "", "also serve NBD on this TCP address, such as :10809")
	fl.StringVar(&f.metrics, "metrics", "", "tell Prometheus how things are on this TCP address, such as localhost:9254, or unix:PATH")
	fl.StringVar(&f.web, "web", "", "serve a page for people on this TCP address, such as localhost:9255; udm web prints where to open it")
	fl.BoolVar(&f.webOperations, "web-operations", false, "allow operations on the page of --web: snapshot, reset, resize, remove")
	fl.StringVar(&f.mount, "mount", "", "also show every device as a file in this directory")
	fl.StringVar(&f.receive, "receive", "", "let daemons with certificates from --tls-ca send devices to this one (udm send --to) at this TCP address")
	fl.StringVar(&f.cert, "tls-cert", "", "certificate file (PEM) for --listen and --receive; clients must then use TLS")
	fl.StringVar(&f.key, "tls-key", "", "key file (PEM) of --tls-cert")
	fl.StringVar(&f.ca, "tls-ca", "", "authority file (PEM); clients must have a certificate from it (GnuTLS clients use TLS 1.2 then)")
	fl.BoolVar(&f.readOnly, "read-only", false, "make all NBD exports read-only")
	fl.IntVar(&f.maxConns, "max-connections", nbd.DefaultMaxConns, "maximum number of NBD connections")
	fl.BoolVar(&f.replace, "replace", false, "have the running daemon replaced by this program, without its clients noticing")
	addParams(fl, &f.params)
	fl.StringVar(&f.log, "log", "", "write the log to this file instead of standard error; SIGHUP reopens it")
	fl.StringVar(&f.logFormat, "log-format", "text", "format of the log: text or json")
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "log successful operations too")
	return cmd
}

func runDaemon(cmd *cobra.Command, f daemonFlags) error {
	root, err := rootOf(cmd)
	if err != nil {
		return err
	}
	if f.replace {
		return replaceDaemon(cmd, root)
	}
	old, err := handover.Inherited()
	if err != nil {
		return err
	}
	err = serveRoot(cmd, f, root, old)
	if old != nil && err != nil {
		_ = old.Refuse(err) // unless it is over already
	}
	return err
}

// serveRoot runs a daemon, after another process if old is not nil.
func serveRoot(cmd *cobra.Command, f daemonFlags, root string, old *handover.Predecessor) (err error) {
	mount := f.mount
	if mount != "" {
		if mount, err = filepath.Abs(mount); err != nil {
			return err
		}
	}
	sockets, err := systemd.Listeners()
	if err != nil {
		return err
	}
	conf, err := f.tls(cmd, sockets["nbd-tcp"] != nil || old != nil)
	if err != nil {
		return err
	}
	keys := &crypt.Ring{}
	types := all.TypesWithKeys(keys)
	if err := setParams(types, f.params); err != nil {
		return err
	}
	if f.maxConns < 1 {
		return usagef(cmd, "--max-connections %d: must be at least 1", f.maxConns)
	}
	if f.logFormat != "text" && f.logFormat != "json" {
		return usagef(cmd, "--log-format %s: give text or json", f.logFormat)
	}
	debug.SetMaxThreads(f.maxConns + spareThreads)
	level := slog.LevelInfo
	if f.verbose {
		level = slog.LevelDebug
	}
	to, closeLog, err := openLog(f.log)
	if err != nil {
		return err
	}
	defer closeLog()
	log := slog.New(logHandler(f.logFormat, to, level))
	return server.Run(cmd.Context(), server.Config{
		Root: root, Program: thisBuild().String(), Listen: f.listen, Metrics: f.metrics, Receive: f.receive, Mount: mount, Web: f.web, WebOperations: f.webOperations, Machine: examineForPage, TLS: conf, ReadOnly: f.readOnly, MaxConns: f.maxConns,
		Hurry: secondSignal(), Types: types, Keys: keys, Log: log, Helper: []string{"/proc/self/exe", attachHelper},
		Sockets: sockets, Predecessor: old, Successor: successor,
		HandedOver: func(pid int) { notify(log, fmt.Sprint(systemd.MainPID, pid)) },
		Ready: func(*service.Service) {
			log.Info("ready", "root", root, "pid", os.Getpid())
			notify(log, systemd.Ready)
		},
		Ending: func() { notify(log, systemd.Stopping) },
	})
}

// replaceDaemon has the daemon of a root replaced by this program.
func replaceDaemon(cmd *cobra.Command, root string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	c := ctl.NewClient(root)
	defer c.Close()
	_, err = c.Replace(cmd.Context(), ctl.Replace{Program: self})
	return err
}

// successor is the command of a daemon with the options of this one.
func successor(program string) *exec.Cmd {
	if program == "" {
		program, _ = os.Executable() // "" is refused when it is started
	}
	c := exec.Command(program, os.Args[1:]...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	return c
}

// logHandler writes a log with a line for each event.
func logHandler(format string, to io.Writer, level slog.Level) slog.Handler {
	o := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.NewJSONHandler(to, o)
	}
	return slog.NewTextHandler(to, o)
}

// spareThreads is the number of threads allowed besides those of connections: Go's
// own default.
const spareThreads = 10000

// notify reports a state to the service manager, if there is one.
func notify(log *slog.Logger, state string) {
	if err := systemd.Notify(state); err != nil {
		log.Warn("cannot notify the service manager", "state", state, "reason", err)
	}
}

// tls is the configuration of --listen and --receive, or nil without a certificate. tcp says that
// there is a TCP socket even without --listen.
func (f *daemonFlags) tls(cmd *cobra.Command, tcp bool) (*tls.Config, error) {
	switch {
	case f.receive != "" && (f.cert == "" || f.key == "" || f.ca == ""):
		return nil, usagef(cmd, "--receive needs --tls-cert, --tls-key and --tls-ca: whoever has a certificate from there may send")
	case f.cert == "" && f.key == "" && f.ca == "":
		return nil, nil
	case f.listen == "" && f.receive == "" && !tcp:
		return nil, usagef(cmd, "the --tls options need --listen ADDRESS or --receive ADDRESS")
	case f.cert == "" || f.key == "":
		return nil, usagef(cmd, "--tls-cert and --tls-key must be given together")
	}
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return nil, fmt.Errorf("--tls-cert and --tls-key: %w", err)
	}
	c := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if f.ca != "" {
		err = nbd.VerifyClients(c, f.ca)
	}
	return c, err
}
