package ctl

import (
	"context"
	"iter"
	"slices"
)

// The table of commands. Each is written once, with its name and its method of
// [Service]. The daemon's HTTP handler serves the table, and [Client] calls its
// entries.
var (
	version     = ask("version", Service.Version)
	targets     = ask("targets", Service.Targets)
	params      = ask("params", Service.Params)
	setParam    = request("set_param", Service.SetParam)
	keys        = ask("keys", Service.Keys)
	setKey      = order("set_key", Service.SetKey)
	removeKey   = order("remove_key", Service.RemoveKey)
	list        = request("list", Service.List)
	device      = request("device", Service.Device)
	create      = request("create", Service.Create)
	load        = request("load", Service.Load)
	clearTable  = request("clear", Service.Clear)
	suspend     = request("suspend", Service.Suspend)
	resume      = request("resume", Service.Resume)
	remove      = order("remove", Service.Remove)
	removeAll   = order("remove_all", Service.RemoveAll)
	rename      = request("rename", Service.Rename)
	message     = request("message", replyTo)
	wait        = request("wait", Service.Wait)
	mount       = order("mount", Service.Mount)
	unmount     = order("unmount", Service.Unmount)
	mounts      = ask("mounts", Service.Mounts)
	attach      = request("attach", Service.Attach)
	detach      = order("detach", Service.Detach)
	attachments = ask("attachments", Service.Attachments)
	exportTo    = request("export", Service.Export)
	unexport    = order("unexport", Service.Unexport)
	exported    = ask("exports", Service.Exported)
	register    = order("register_disk", Service.RegisterDisk)
	unregister  = order("unregister_disk", Service.UnregisterDisk)
	disks       = ask("disks", Service.Disks)
	events      = stream("events", Service.Events)
	limit       = order("limit", Service.Limit)
	limits      = ask("limits", Service.Limits)
	stats       = ask("stats", Service.Stats)
	trace       = streamOf("trace", Service.Trace)
	frontEnds   = ask("front_ends", Service.FrontEnds)

	objects      = ask("objects", Service.Objects)
	object       = request("object", Service.Object)
	label        = order("label", Service.Label)
	labelled     = request("labelled", Service.Labelled)
	operations   = ask("operations", Service.Operations)
	cancel       = order("operation_cancel", Service.CancelOperation)
	clone        = order("clone", Service.Clone)
	takeSnapshot = order("snapshot", Service.Snapshot)
	merge        = order("merge", Service.Merge)
	rollback     = order("rollback", Service.Rollback)
	reset        = order("reset", Service.Reset)
	resize       = order("resize", Service.Resize)
	renameObject = order("object_rename", Service.RenameObject)
	flatten      = order("flatten", Service.Flatten)
	commit       = order("commit", Service.Commit)
	copyOut      = order("copy_out", Service.CopyOut)
	copyIn       = order("copy_in", Service.CopyIn)
	removeObject = order("object_remove", Service.RemoveObject)
	changes      = request("changes", Service.Changes)
	send         = download("send", Service.Send)
	receive      = upload("receive", Service.Receive)
	checkpoints  = request("checkpoints", Service.Checkpoints)
	createPool   = order("pool_create", Service.CreatePool)
	growPool     = order("pool_grow", Service.GrowPool)
	createVolume = order("volume_create", Service.CreateVolume)
	orphans      = ask("orphans", Service.Orphans)
	removeOrphan = order("orphan_remove", Service.RemoveOrphan)
)

// replyTo is Message with the answer in the form of the protocol.
func replyTo(s Service, ctx context.Context, r Message) (Reply, error) {
	text, err := s.Message(ctx, r)
	return Reply{text}, err
}

// Command is a command of the protocol, for servers.
type Command struct {
	Name string
	// Do runs the command on a service. decode fills in the request from what the
	// client sent, a value or an [Uploading]; its error is returned unchanged. The
	// answer may be a [Stream] or a [Download].
	Do func(ctx context.Context, s Service, decode func(any) error) (answer any, err error)
}

// Commands returns all commands.
func Commands() []Command { return slices.Clone(commands) }

var commands []Command

// command is a command with a request and an answer, for clients.
type command[In, Out any] string

// call runs the command on the daemon.
func (name command[In, Out]) call(ctx context.Context, c *Client, in In) (out Out, err error) {
	return out, c.call(ctx, string(name), in, &out)
}

// nothing is an empty request or answer.
type nothing struct{}

// request adds a command with a request and an answer.
func request[In, Out any](name string, do func(Service, context.Context, In) (Out, error)) command[In, Out] {
	commands = append(commands, Command{name, func(ctx context.Context, s Service, decode func(any) error) (any, error) {
		var in In
		if err := decode(&in); err != nil {
			return nil, err
		}
		return do(s, ctx, in)
	}})
	return command[In, Out](name)
}

// ask adds a command without a request.
func ask[Out any](name string, do func(Service, context.Context) (Out, error)) command[nothing, Out] {
	return request(name, func(s Service, ctx context.Context, _ nothing) (Out, error) { return do(s, ctx) })
}

// order adds a command without an answer.
func order[In any](name string, do func(Service, context.Context, In) error) command[In, nothing] {
	return request(name, func(s Service, ctx context.Context, in In) (nothing, error) { return nothing{}, do(s, ctx, in) })
}

// Stream is an answer of many values, each sent as soon as it is available, or with the next
// one if it is [Continued].
type Stream iter.Seq2[any, error]

// Continued is a value of a stream that may be sent together with the next one.
type Continued interface{ More() bool }

// streaming is a command whose answer is a stream, for clients.
type streaming[In, Out any] string

// stream adds a command without a request whose answer is a stream.
func stream[Out any](name string, do func(Service, context.Context) (iter.Seq2[Out, error], error)) streaming[nothing, Out] {
	return streamOf(name, func(s Service, ctx context.Context, _ nothing) (iter.Seq2[Out, error], error) { return do(s, ctx) })
}

// streamOf adds a command whose answer is a stream.
func streamOf[In, Out any](name string, do func(Service, context.Context, In) (iter.Seq2[Out, error], error)) streaming[In, Out] {
	request(name, func(s Service, ctx context.Context, in In) (Stream, error) {
		values, err := do(s, ctx, in)
		if err != nil {
			return nil, err
		}
		return func(yield func(any, error) bool) {
			for v, err := range values {
				if !yield(v, err) {
					return
				}
			}
		}, nil
	})
	return streaming[In, Out](name)
}
