package dmsetup

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"time"

	"udm/ctl"
)

// Streams are the standard streams of a run.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	// Width is that of the terminal that Out is, or 0 if it is not a terminal. UTF8
	// says that it can draw boxes.
	Width int
	UTF8  bool
}

// tool is one run of dmsetup.
type tool struct {
	Streams
	ctx    context.Context
	client *ctl.Client
	given
	out      *bufio.Writer // over Streams.Out
	mangling mangling

	report   *report
	selected *command // command for the devices that -S selects; nil: report them

	conciseStarted bool // table --concise has printed something
	tree           *tree
}

// Run runs dmsetup with the given arguments (without the program's name) on the
// daemon at root, and returns its exit code.
func Run(ctx context.Context, root string, args []string, s Streams) int {
	client := ctl.NewClient(root)
	defer client.Close()
	t := &tool{Streams: s, ctx: ctx, client: client, mangling: auto}
	t.out = bufio.NewWriter(s.Out)
	ok := t.main(args)
	if err := t.out.Flush(); err != nil || !ok {
		return 1
	}
	return 0
}

// complain makes an error with libdm's words, which start with a capital and end with
// a full stop.
func complain(format string, args ...any) error { return complaint(fmt.Sprintf(format, args...)) }

type complaint string

func (c complaint) Error() string { return string(c) }

// errorf prints a line to standard error, after flushing all output so far.
func (t *tool) errorf(format string, args ...any) bool {
	_ = t.out.Flush() // the error is reported at the end
	fmt.Fprintf(t.Err, format+"\n", args...)
	return false
}

// printf prints to standard output. Its error is reported when the run ends.
func (t *tool) printf(format string, args ...any) { fmt.Fprintf(t.out, format, args...) }

func (t *tool) main(args []string) bool {
	g, operands, err := parseOptions(args)
	if err != nil {
		return t.errorf("dmsetup: %v\nCouldn't process command line.", err)
	}
	t.given = g
	if err := t.check(); err != nil {
		return t.errorf("%v\nCouldn't process command line.", err)
	}
	switch {
	case t.has("help"):
		operands = []string{"help"}
	case t.has("version"):
		operands = []string{"version"}
	case len(operands) == 0:
		t.usage()
		return false
	}
	return t.command(operands[0], operands[1:])
}

// check refuses contradictory options and bad values.
func (t *tool) check() error {
	if v, ok := t.value["manglename"]; ok {
		if t.mangling, ok = parseMangling(v); !ok {
			return complain("Unknown name mangling mode.")
		}
	}
	switch {
	case atoi(t.value["count"]) < 0:
		return complain("Count must be zero or greater.")
	case t.has("interval") && atoi(t.value["interval"]) <= 0:
		return complain("Interval must be a positive integer.")
	case t.has("major") != t.has("minor"):
		return complain("Please specify both major number and minor number.")
	case t.has("table") && t.has("notable"):
		return complain("--table and --notable are incompatible.")
	case t.has("addnodeonresume") && t.has("addnodeoncreate"):
		return complain("--addnodeonresume and --addnodeoncreate are incompatible.")
	}
	return nil
}

// absent says why a command of dmsetup is not supported; "" for any other word.
func absent(name string) string {
	switch name {
	case "stats":
		return "udm has no stats command; use messages, such as: dmsetup message DEVICE 0 @stats_create - /1"
	case "measure":
		return "udm has no measure command, because it has no IMA to measure for."
	}
	return ""
}

func (t *tool) command(name string, args []string) bool {
	cmd := find(name)
	if why := absent(name); cmd == nil && why != "" {
		t.errorf("%s", why)
		return false
	}
	if cmd == nil {
		t.errorf("Unknown command.")
		t.usage()
		return false
	}
	if len(args) < cmd.min || cmd.max >= 0 && len(args) > cmd.max {
		t.errorf("Incorrect number of arguments.")
		t.usage()
		return false
	}
	if cmd.name == "splitname" && !t.has("columns") {
		t.set("columns", "")
	}
	if cmd.name == "mangle" {
		t.mangling = none
	}
	if err := t.checkDisplayOptions(); err != nil {
		return t.errorf("%v\nCouldn't process command line.", err)
	}
	return t.prepareAndRun(cmd, args)
}

// prepareAndRun runs a command. With -S it runs on the devices that a report selects.
func (t *tool) prepareAndRun(cmd *command, args []string) bool {
	if t.has("select") && cmd.selects {
		t.selected = cmd
		t.set("columns", "")
		cmd = find("info")
	}
	if t.has("columns") && cmd.name != "help" {
		if !t.startReport(cmd) {
			return false
		}
		if t.report == nil {
			return true
		}
	}
	for n := t.rounds(); ; n-- {
		ok := t.each(cmd, args)
		if t.conciseStarted {
			t.printf("\n")
		}
		if t.report != nil && t.selected == nil {
			t.report.print(t.out)
			t.report.rows = nil
		}
		if !ok || n == 1 {
			return ok
		}
		t.printf("\n")
		if t.out.Flush() != nil || !t.pause(time.Duration(max(1, atoi(t.value["interval"])))*time.Second) {
			return false
		}
	}
}

// rounds is how often a report is repeated; 0: for ever.
func (t *tool) rounds() int {
	switch {
	case t.report == nil || !t.has("count") && !t.has("interval"):
		return 1
	case t.has("count"):
		return atoi(t.value["count"])
	}
	return 0
}

// each runs a command for each named device, or once for all.
func (t *tool) each(cmd *command, args []string) bool {
	multiple := cmd.repeats && len(args) != 1 && (len(args) > 0 || !t.has("uuid") && !t.has("major"))
	for {
		if !cmd.run(t, call{cmd: cmd, args: args, multiple: multiple}) {
			return t.errorf("Command failed.")
		}
		if !cmd.repeats || len(args) <= 1 {
			return true
		}
		args = args[1:]
	}
}

// call is one run of a command: on the first of args, or on dev when the command runs
// on all devices.
type call struct {
	cmd      *command
	args     []string
	dev      *ctl.Device // nil: named by args or the options
	multiple bool
}

func (c call) arg() string {
	if len(c.args) == 0 {
		return ""
	}
	return c.args[0]
}
