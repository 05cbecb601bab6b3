package dmsetup

// command is a verb of dmsetup.
type command struct {
	name     string
	operands string // for the usage
	min, max int    // number of operands; max -1: any
	repeats  bool   // runs once for each operand
	selects  bool   // can run on the devices that -S selects
	run      func(*tool, call) bool
}

func find(name string) *command {
	for _, c := range commands() {
		if c.name == name {
			return &c
		}
	}
	return nil
}

// commands returns the verbs in the order of the usage.
func commands() []command {
	return []command{
		{"help", "[-c|-C|--columns]", 0, 0, false, false, (*tool).help},
		{"create", "NAME [-u UUID] [-j MAJOR -m MINOR] [-r] [--notable|--table TABLE|FILE]\n\tcreate --concise [DEVICES]", 0, 2, false, false, (*tool).create},
		{"remove", "[--deferred] [-f|--force] [--retry] DEVICE...", 0, -1, true, true, (*tool).remove},
		{"remove_all", "[--deferred] [-f|--force]", 0, 0, false, false, (*tool).removeAll},
		{"suspend", "[--noflush] [--nolockfs] DEVICE...", 0, -1, true, true, (*tool).suspend},
		{"resume", "[--noflush] [--nolockfs] DEVICE...", 0, -1, true, true, (*tool).resume},
		{"load", "DEVICE [-r] [--table TABLE|FILE]", 0, 2, false, false, (*tool).load},
		{"clear", "DEVICE...", 0, -1, true, true, (*tool).clear},
		{"reload", "DEVICE [-r] [--table TABLE|FILE]", 0, 2, false, false, (*tool).load},
		{"wipe_table", "[-f|--force] [--noflush] [--nolockfs] DEVICE...", 0, -1, true, true, (*tool).wipeTable},
		{"rename", "DEVICE [--setuuid] NAME_OR_UUID", 1, 2, false, false, (*tool).rename},
		{"message", "DEVICE SECTOR MESSAGE", 2, -1, false, false, (*tool).message},
		{"ls", "[--target TYPE] [--exec COMMAND] [-o OPTIONS] [--tree]", 0, 0, false, false, (*tool).ls},
		{"info", "[-c [-o FIELDS] [-O KEYS] [-S SELECTION]] [DEVICE...]", 0, -1, true, false, (*tool).info},
		{"deps", "[-o OPTIONS] [DEVICE...]", 0, -1, true, true, (*tool).deps},
		{"status", "[--noflush] [--target TYPE] [DEVICE...]", 0, -1, true, true, (*tool).status},
		{"table", "[--concise] [--target TYPE] [--showkeys] [DEVICE...]", 0, -1, true, true, (*tool).status},
		{"wait", "[--noflush] DEVICE [EVENT_NR]", 0, 2, false, false, (*tool).wait},
		{"mknodes", "[DEVICE...]", 0, -1, true, false, (*tool).nothing},
		{"mangle", "[DEVICE...]", 0, -1, true, false, (*tool).mangle},
		{"udevcreatecookie", "", 0, 0, false, false, (*tool).nothing},
		{"udevreleasecookie", "[COOKIE]", 0, 1, false, false, (*tool).nothing},
		{"udevcomplete", "COOKIE", 1, 1, false, false, (*tool).nothing},
		{"udevcomplete_all", "[AGE_IN_MINUTES]", 0, 1, false, false, (*tool).nothing},
		{"udevcookies", "", 0, 0, false, false, (*tool).nothing},
		{"target-version", "TYPE...", 1, -1, true, false, (*tool).targetVersion},
		{"targets", "", 0, 0, false, false, (*tool).targets},
		{"version", "", 0, 0, false, false, (*tool).version},
		{"setgeometry", "DEVICE CYLINDERS HEADS SECTORS START", 5, 5, false, false, (*tool).setGeometry},
		{"splitname", "NAME [SUBSYSTEM]", 1, 2, false, false, (*tool).splitName},
	}
}

const usageHead = `Usage:

dmsetup
        [--version] [-h|--help [-c|-C|--columns]]
        [-v|--verbose] [-f|--force] [-r|--readonly] [-y|--yes] [--retry]
        [--noflush] [--nolockfs] [--inactive] [--manglename {none|hex|auto}]
        [-c|-C|--columns] [-o <fields>] [-O|--sort <sort_fields>]
        [-S|--select <selection>] [--nameprefixes] [--noheadings]
        [--rows] [--unquoted] [--separator <separator>]

`

const usageTail = `
DEVICE is a name, or (if only one) -u UUID or -j MAJOR -m MINOR.
FIELDS are separated by commas; help -c lists them.
DEVICES of --concise are separated by semicolons, each of them
    NAME,UUID,MINOR,FLAGS,TABLE[,TABLE]...
    with FLAGS ro or rw (the default); UUID, MINOR and FLAGS may be empty.
A table that is not named is read from standard input.
OPTIONS are devno, devname, blkdevname.
OPTIONS of --tree are ascii, utf, vt100; compact, inverted, notrunc;
    blkdevname, [no]device, active, open, rw and uuid.

`

// usage prints all commands to standard error.
func (t *tool) usage() {
	text := usageHead
	for _, c := range commands() {
		text += "\t" + c.name + " " + c.operands + "\n"
	}
	t.errorf("%s", text+usageTail[:len(usageTail)-1])
}

func (t *tool) help(call) bool {
	t.usage()
	if t.has("columns") {
		t.showFields(false)
	}
	return true
}

// nothing is the action of commands for udev and device nodes.
func (t *tool) nothing(call) bool { return true }
