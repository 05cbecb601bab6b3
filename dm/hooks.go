package dm

import (
	"syscall"

	"udm/blk"
)

// The hooks are what a Mapper may implement beside Map, each an interface with one
// method. Each comment says what happens if a target lacks the hook. Suspend and
// resume hooks of a device run one at a time, in table order, and may wait.
type (
	// PerIOHook gives each clone data of its own: Clone.PerIO holds what NewPerIO
	// has returned. It stays with the clone when the core reuses that, so Map
	// must reset it. Absent: PerIO is nil.
	PerIOHook interface{ NewPerIO() any }

	// EndIOHook runs at the end of each clone that Map has remapped or that the
	// target has completed, with the clone's status. With EndDone it returns the
	// status to use. Absent: the clone's own status counts.
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
	// ResumeHook runs before the first I/O is let in. It does not run after an
	// internal suspend.
	ResumeHook interface{ Resume() }

	// StatusHook returns the words after the target's name in status and table
	// lines. It may run at any time. Absent: there are none.
	StatusHook interface {
		Status(kind StatusKind, flags StatusFlags) string
	}

	// MessageHook takes messages, with their words split as in a table; there is
	// at least one. With a nil error and an empty reply, nothing is printed.
	// Absent: messages fail with EINVAL.
	MessageHook interface {
		Message(args []string) (reply string, err error)
	}

	// AreasHook lists the areas of lower devices that the target uses, for limits
	// and checks. Absent: there are none.
	AreasHook interface{ Areas() []Area }

	// ExtentsHook reports which sectors hold data, as [blk.ExtentsFunc] does.
	// Sectors count from the target's begin, in the result as well. It runs
	// concurrently with I/O and suspends and may wait. One call does a bounded
	// amount of work and leaves out the sectors that it does not reach. If data
	// moves between two devices meanwhile, the hook must find it in one of them.
	// Absent: all sectors are data.
	ExtentsHook interface {
		Extents(offset, sectors uint64) []blk.Extent
	}

	// CommitsHook tells of the commits of the target's metadata. Absent: there are
	// none.
	CommitsHook interface{ Commits() Commits }

	// UncommittedHook reports whether completed writes depend on something in the
	// memory of this process that the next flush writes. It is called concurrently
	// with I/O and does not wait. Targets with it set [blk.Limits].ProcessCache.
	// Absent: none does.
	UncommittedHook interface{ Uncommitted() bool }

	// HintHook changes the limits combined from the target's areas (the kernel's
	// io_hints). Absent: they stay as they are.
	HintHook interface{ Hint(l *blk.Limits) }
)

// hooks are the hooks of one target. A hook that its Mapper lacks is replaced by one
// with the default behaviour, so that callers need not check.
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
	CommitsHook
	UncommittedHook
	HintHook
}

// findHooks looks up all hooks of m.
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
		CommitsHook:        hook[CommitsHook](m, none),
		UncommittedHook:    hook[UncommittedHook](m, none),
		HintHook:           hook[HintHook](m, none),
	}
}

func hook[H any](m Mapper, none H) H {
	if h, ok := m.(H); ok {
		return h
	}
	return none
}

// hookless has the default behaviour of every hook.
type hookless struct{ target *Target }

func (hookless) Presuspend()                           {}
func (hookless) PresuspendUndo()                       {}
func (hookless) Postsuspend()                          {}
func (hookless) Preresume() error                      { return nil }
func (hookless) Resume()                               {}
func (hookless) Status(StatusKind, StatusFlags) string { return "" }
func (hookless) Areas() []Area                         { return nil }
func (hookless) Commits() Commits                      { return Commits{} }
func (hookless) Uncommitted() bool                     { return false }
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
