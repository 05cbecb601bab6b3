package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"udm/ctl"
	"udm/dm"
	"udm/targets/linear"
	"udm/targets/snapshot"
)

func mergeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "merge NAME",
		Short: "Merge a snapshot or clone into its origin",
		Long: `merge copies the content of a snapshot or clone to its origin. This changes the
origin. Do not merge a clone while other clones or volumes use the same image: it
would change under them.

The origin of a snapshot shows the merged content at once and may stay in use. The
snapshot is removed. A clone of an image remains, as a device on the image. If the
command is interrupted, the daemon goes on with the merge. Run "udm merge NAME"
again to watch and complete it.`,
		Example: `  udm merge before-upgrade
  udm merge vm1`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := newMaker(cmd)
			if err != nil {
				return err
			}
			defer m.Close()
			d, err := m.device(args[0])
			if err != nil {
				return err
			}
			name, err := m.startMerge(d)
			if err != nil {
				return explain(d.Name, err)
			}
			if err := m.watchMerge(name, cmd.ErrOrStderr()); err != nil {
				return err
			}
			if err := m.endMerge(name); err != nil {
				return err
			}
			if d, err = m.device(name); err != nil {
				return err
			}
			return printDevice(cmd, d)
		},
	}
	addJSON(cmd)
	return cmd
}

// startMerge makes a device merge, and tells which: the snapshot itself when
// its origin is an image, else the device that has the origin.
func (m *maker) startMerge(d ctl.Device) (string, error) {
	if _, ok := only(d).(*snapshot.MergeLine); ok {
		return d.Name, nil
	}
	l, err := lineOf[*snapshot.Line](d, "a snapshot or clone with a store")
	if err != nil {
		return "", err
	}
	if !l.Persistent {
		return "", fmt.Errorf("the store of %s is not persistent; only a persistent store can be merged", d.Name)
	}
	// One that is suspended has handed its store on to a merge that did not begin.
	if isInvalid(d) && !d.Suspended {
		return "", fmt.Errorf("%s is invalid; its content is lost and cannot be merged", d.Name)
	}
	merge := &snapshot.MergeLine{Line: *l}
	merge.ZeroesCOW, merge.PassdownOrigin = false, false
	origin, _ := depNamed(d, l.Origin)
	if origin.Map == "" {
		return d.Name, m.replace(d, merge)
	}
	above, err := m.originDevice(origin)
	if err != nil {
		return "", err
	}
	if d.Opens > 0 {
		return "", fmt.Errorf("%s is in use; detach its clients first", d.Name)
	}
	if _, ok := only(above).(*snapshot.MergeLine); ok && hasDep(above, l.COW) {
		return above.Name, m.remove(d.Name) // what an earlier merge left
	}
	return above.Name, m.handOver(d, above, merge)
}

func isInvalid(d ctl.Device) bool {
	if len(d.Status) != 1 {
		return false
	}
	s, ok := statusOf(d.Status[0]).(*snapshot.Status)
	return ok && s.State == snapshot.Invalid
}

func hasDep(d ctl.Device, name string) bool {
	_, ok := depNamed(d, name)
	return ok
}

// originDevice is the device whose snapshot-origin or snapshot-merge stands on
// origin.
func (m *maker) originDevice(origin ctl.Dep) (ctl.Device, error) {
	users, err := m.users(origin.Number)
	if err != nil {
		return ctl.Device{}, err
	}
	for _, u := range users {
		switch only(u).(type) {
		case *snapshot.OriginLine, *snapshot.MergeLine:
			return u, nil
		}
	}
	return ctl.Device{}, fmt.Errorf("no snapshot-origin device is on %s; load a snapshot-merge table with udm load", origin.Map)
}

// handOver gives the store of a snapshot to its origin's device, which shows
// its content from then on, and removes the snapshot.
func (m *maker) handOver(d, above ctl.Device, merge *snapshot.MergeLine) error {
	if err := m.load(above, merge); err != nil {
		return err
	}
	err := m.suspend(d.Name)
	if err == nil {
		err = m.suspend(above.Name)
	}
	if err == nil {
		err = m.resume(above.Name)
	}
	if err != nil {
		return errors.Join(err, m.clear(above.Name), m.resume(above.Name), m.resume(d.Name))
	}
	return m.remove(d.Name)
}

// watchEvery is how often the progress of a merge is looked at.
const watchEvery = 200 * time.Millisecond

// watchMerge shows a merge until nothing is left to write back.
func (m *maker) watchMerge(name string, w io.Writer) error {
	p := mpb.NewWithContext(m.ctx, mpb.WithOutput(w), mpb.WithWidth(60))
	bar := p.AddBar(0, mpb.PrependDecorators(decor.Name("merging "+name)), mpb.AppendDecorators(decor.Percentage()))
	err := m.followMerge(name, bar)
	if err != nil {
		bar.Abort(false)
	}
	p.Wait()
	return err
}

// followMerge moves a bar as the merge goes on, to its end.
func (m *maker) followMerge(name string, bar *mpb.Bar) error {
	var total int64
	for {
		used, meta, err := m.mergeStatus(name)
		if err != nil {
			return err
		}
		left := int64(used - min(used, meta))
		total = max(total, left, 1)
		bar.SetTotal(total, false)
		bar.SetCurrent(total - left)
		if left == 0 {
			bar.SetTotal(total, true)
			return nil
		}
		select {
		case <-m.ctx.Done():
			return fmt.Errorf("interrupted; the daemon goes on with the merge; run udm merge %s again to watch it", name)
		case <-time.After(watchEvery):
		}
	}
}

// mergeStatus reads how many sectors of a store are used, and how many of these
// are its own.
func (m *maker) mergeStatus(name string) (used, meta uint64, err error) {
	d, err := m.device(name)
	if err != nil {
		return 0, 0, err
	}
	_, merging := only(d).(*snapshot.MergeLine)
	if !merging || len(d.Status) != 1 {
		return 0, 0, fmt.Errorf("%s is no longer merging", name)
	}
	s, ok := statusOf(d.Status[0]).(*snapshot.Status)
	if !ok || s.State != snapshot.Figures {
		return 0, 0, fmt.Errorf("the merge of %s failed: %s; what is not merged is still in its store", name, d.Status[0].Params)
	}
	return s.Allocated, s.Metadata, nil
}

// endMerge puts a plain table in the place of a merge that is complete.
func (m *maker) endMerge(name string) error {
	d, err := m.device(name)
	if err != nil {
		return err
	}
	l, err := lineOf[*snapshot.MergeLine](d, "merging")
	if err != nil {
		return err
	}
	origin, _ := depNamed(d, l.Origin)
	if origin.Map == "" {
		return m.replace(d, &linear.Line{Place: dm.Place{Device: l.Origin}})
	}
	users, err := m.users(origin.Number)
	if err != nil {
		return err
	}
	if len(users) > 1 {
		return m.replace(d, &snapshot.OriginLine{Origin: l.Origin})
	}
	return m.putBack(d, origin.Map)
}

// putBack gives a device the table of the device that it stands on, which was
// made for its snapshots, and removes that.
func (m *maker) putBack(d ctl.Device, real string) error {
	r, err := m.device(real)
	if err != nil {
		return err
	}
	if err := m.loadLines(d.Name, r.Table, d.ReadOnly); err != nil {
		return err
	}
	return errors.Join(m.resume(d.Name), m.remove(real))
}
