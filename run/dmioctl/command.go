package dmioctl

import "fmt"

// Type is the ioctl type of all commands, the second byte of the request number.
const Type = 0xfd

// Command is the number of a command, the lowest byte of the ioctl's request number.
type Command uint8

// The commands.
const (
	Version Command = iota
	RemoveAll
	ListDevices
	DevCreate
	DevRemove
	DevRename
	DevSuspend
	DevStatus
	DevWait
	TableLoad
	TableClear
	TableDeps
	TableStatus
	ListVersions
	TargetMsg
	DevSetGeometry
	DevArmPoll
	GetTargetVersion
)

// Direction says whose bytes they are.
type Direction int

// The directions.
const (
	Request Direction = iota // of a program
	Answer                   // of the kernel
)

// commands has, for each command, the forms of the data in both directions.
var commands = [...]struct {
	name string
	data [2]form
}{
	Version:          {"DM_VERSION", [2]form{}},
	RemoveAll:        {"DM_REMOVE_ALL", [2]form{}},
	ListDevices:      {"DM_LIST_DEVICES", [2]form{Answer: devices}},
	DevCreate:        {"DM_DEV_CREATE", [2]form{}},
	DevRemove:        {"DM_DEV_REMOVE", [2]form{}},
	DevRename:        {"DM_DEV_RENAME", [2]form{Request: text}},
	DevSuspend:       {"DM_DEV_SUSPEND", [2]form{}},
	DevStatus:        {"DM_DEV_STATUS", [2]form{}},
	DevWait:          {"DM_DEV_WAIT", [2]form{Answer: statuses}},
	TableLoad:        {"DM_TABLE_LOAD", [2]form{Request: table}},
	TableClear:       {"DM_TABLE_CLEAR", [2]form{}},
	TableDeps:        {"DM_TABLE_DEPS", [2]form{Answer: deps}},
	TableStatus:      {"DM_TABLE_STATUS", [2]form{Answer: statuses}},
	ListVersions:     {"DM_LIST_VERSIONS", [2]form{Answer: versions}},
	TargetMsg:        {"DM_TARGET_MSG", [2]form{Request: message, Answer: reply}},
	DevSetGeometry:   {"DM_DEV_SET_GEOMETRY", [2]form{Request: text}},
	DevArmPoll:       {"DM_DEV_ARM_POLL", [2]form{}},
	GetTargetVersion: {"DM_GET_TARGET_VERSION", [2]form{Answer: versions}},
}

// Known reports whether there is such a command.
func (c Command) Known() bool { return int(c) < len(commands) }

func (c Command) String() string {
	if !c.Known() {
		return fmt.Sprintf("DM_%d", uint8(c))
	}
	return commands[c].name
}

// Flags are the flags of a call.
type Flags uint32

// The flags, with the kernel's values.
const (
	ReadOnly         Flags = 1 << 0
	Suspended        Flags = 1 << 1
	PersistentDev    Flags = 1 << 3
	StatusTable      Flags = 1 << 4
	ActivePresent    Flags = 1 << 5
	InactivePresent  Flags = 1 << 6
	BufferFull       Flags = 1 << 8
	SkipBdget        Flags = 1 << 9
	SkipLockfs       Flags = 1 << 10
	Noflush          Flags = 1 << 11
	QueryInactive    Flags = 1 << 12
	UeventGenerated  Flags = 1 << 13
	UUID             Flags = 1 << 14
	SecureData       Flags = 1 << 15
	DataOut          Flags = 1 << 16
	DeferredRemove   Flags = 1 << 17
	InternalSuspend  Flags = 1 << 18
	IMAMeasurement   Flags = 1 << 19
	onlyInAnswers          = BufferFull | UeventGenerated | SecureData | DataOut
	describingDevice       = ReadOnly | Suspended | ActivePresent | InactivePresent | DeferredRemove | InternalSuspend
)

// ForAnswer returns the flags of a request as the kernel takes them over into the
// answer, before it sets those that describe the device.
func (f Flags) ForAnswer() Flags { return f &^ onlyInAnswers }

// WithDevice replaces the flags that describe a device.
func (f Flags) WithDevice(state Flags) Flags { return f&^describingDevice | state&describingDevice }

// If is f, or none.
func (f Flags) If(on bool) Flags {
	if on {
		return f
	}
	return 0
}
