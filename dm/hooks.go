package dm

import (
	"syscall"

	"udm/blk"
)

// The hooks: what a Mapper may do beside Map, each an interface of one method.
// Each says what holds when a target lacks it. Suspend and resume hooks run one
// at a time for a device, in table order, and may wait.
type (
	// PerIOHook gives each clone data of its own: Clone.PerIO holds what NewPerIO
	// made. It stays with the clone when that is used again, so Map resets it.
	// Absent: PerIO is nil.
	PerIOHook interface{ NewPerIO() any }

	// EndIOHook sees each clone that Map remapped, or that the target completed,
	// at its end, with its status; with EndDone it returns the status to use.
	// Absent: the clone's own.
	EndIOHook interface {
		EndIO(c *Clone, st blk.Status) (blk.Status, EndOutcome)
	}

	// PresuspendHook runs before the device drains; I/O still arrives.
	PresuspendHook interface{ Presuspend() }
	// PresuspendUndoHook runs when a suspend gives up after Presuspend.
	PresuspendUndoHook interface{ PresuspendUndo() }
	// PostsuspendHook runs after the drain; no I/O is in flight.
	PostsuspendHook interface{ Postsuspend() }
	// PreresumeHook runs for all targets before any Resume. An error leaves the
	// device suspended; nothing is undone.
	PreresumeHook interface{ Preresume() error }
	// ResumeHook runs before the first I/O is let in. With an internal resume it
	// does not run.
	ResumeHook interface{ Resume() }

	// StatusHook gives the words behind the target's name in status lines.
	// Absent: none.
	StatusHook interface {
		Status(kind StatusKind, flags StatusFlags) string
	}

	// MessageHook takes messages, words split as in a table. A nil error with an
	// empty reply prints nothing. Absent: EINVAL.
	MessageHook interface {
		Message(args []string) (reply string, err error)
	}

	// AreasHook lists the areas of lower devices that the target uses, for limits,
	// checks and dependencies. Absent: none.
	AreasHook interface{ Areas() []Area }

	// ExtentsHook tells which sectors hold data, as [blk.ExtentsFunc] does; offset
	// counts from the target's begin, in the answer too. It runs beside I/O and
	// suspends, may wait, and looks at a bounded number of things: what it does
	// not reach it leaves out. Whoever looks first at what is above a device and
	// then below must not miss what moves down meanwhile, nor the reverse.
	// Absent: all of it is data.
	ExtentsHook interface {
		Extents(offset, sectors uint64) []blk.Extent
	}

	// HintHook overrides the limits combined from the target's areas
	// (the kernel's io_hints). Absent: they stay.
	HintHook interface{ Hint(l *blk.Limits) }
)

// hooks are those of one target. In the place of what its Mapper lacks stands
// the behaviour of a target without it, so callers need not ask.
type hooks struct {
	perIO PerIOHook // nil: none
	endIO EndIOHook // nil: none
	PresuspendHook
	PresuspendUndoHook
	PostsuspendHook
	PreresumeHook
	ResumeHook
	StatusHook
	MessageHook
	AreasHook
	ExtentsHook
	HintHook
}

// findHooks looks for every hook in m.
func findHooks(ti *Target, m Mapper) hooks {
	none := hookless{ti}
	return hooks{
		perIO:              hook[PerIOHook](m, nil),
		endIO:              hook[EndIOHook](m, nil),
		PresuspendHook:     hook[PresuspendHook](m, none),
		PresuspendUndoHook: hook[PresuspendUndoHook](m, none),
		PostsuspendHook:    hook[PostsuspendHook](m, none),
		PreresumeHook:      hook[PreresumeHook](m, none),
		ResumeHook:         hook[ResumeHook](m, none),
		StatusHook:         hook[StatusHook](m, none),
		MessageHook:        hook[MessageHook](m, none),
		AreasHook:          hook[AreasHook](m, none),
		ExtentsHook:        hook[ExtentsHook](m, none),
		HintHook:           hook[HintHook](m, none),
	}
}

func hook[H any](m Mapper, none H) H {
	if h, ok := m.(H); ok {
		return h
	}
	return none
}

// hookless is a target without hooks.
type hookless struct{ target *Target }

func (hookless) Presuspend()                           {}
func (hookless) PresuspendUndo()                       {}
func (hookless) Postsuspend()                          {}
func (hookless) Preresume() error                      { return nil }
func (hookless) Resume()                               {}
func (hookless) Status(StatusKind, StatusFlags) string { return "" }
func (hookless) Areas() []Area                         { return nil }
func (hookless) Hint(*blk.Limits)                      {}

func (hookless) Extents(offset, sectors uint64) []blk.Extent { return blk.AllData(offset, sectors) }

func (h hookless) Message([]string) (string, error) {
	return "", Errorf(syscall.EINVAL, "target type %s does not support messages", h.target.Type.Name)
}

// forEach calls a hook of every target of t, in table order. t may be nil.
func (t *Table) forEach(call func(*hooks)) {
	if t == nil {
		return
	}
	for _, ti := range t.targets {
		call(&ti.core.hooks)
	}
}
