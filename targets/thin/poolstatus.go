package thin

import (
	"fmt"
	"strings"
	"syscall"

	"udm/dm"
	"udm/targets/thin/thinmeta"
)

func (pt *poolTarget) Status(kind dm.StatusKind, flags dm.StatusFlags) string {
	if kind == dm.TableText {
		return pt.line().String()
	}
	s := &PoolStatus{State: Fail}
	pt.pool.call(func() {
		if pt.pool.mode() == modeFail {
			return
		}
		// Commit first, if allowed, so that the figures are those of a commit, and that
		// metadata which cannot be written show up.
		if flags&dm.StatusNoflush == 0 && !pt.t.Device().Suspended() {
			pt.pool.md.Renew()
			_ = pt.pool.commit()
		}
		s = pt.info()
	})
	return s.String()
}

func (pt *poolTarget) line() *PoolLine {
	f := pt.requested
	return &PoolLine{
		Metadata: pt.meta.Name(), Data: pt.data.Name(), BlockSectors: pt.pool.blockSectors, LowWater: pt.lowWater,
		SkipZeroing: !f.zero, IgnoreDiscard: !f.discard, NoPassdown: !f.passdown, ReadOnly: f.readOnly, ErrorIfNoSpace: f.errorIfNoSpace,
	}
}

// info builds the status line. If the commit just before it ended in mode fail there
// are no figures.
func (pt *poolTarget) info() *PoolStatus {
	p, md := pt.pool, pt.pool.md
	if md.Failed() {
		return &PoolStatus{State: Error}
	}
	total, data := md.MetadataBlocks(), md.DataBlocks()
	return &PoolStatus{
		TransactionID: md.TransactionID(), HeldRoot: md.HeldRoot(), Mode: p.mode().word(),
		UsedMetadata: total - md.FreeMetadata(), TotalMetadata: total, UsedData: data - md.FreeData(), TotalData: data,
		IgnoreDiscard: !p.settings.features.discard, NoPassdown: !p.settings.features.passdown, ErrorIfNoSpace: p.settings.features.errorIfNoSpace,
		NeedsCheck: md.NeedsCheck(), LowMetadata: pt.metadataThreshold(),
	}
}

// Message runs a message on the owner in a transaction of its own: a failed message
// changes nothing.
func (pt *poolTarget) Message(args []string) (string, error) {
	p := pt.pool
	if err := p.serviceable(); err != nil {
		return "", err
	}
	word, n, err := parseMessage(args)
	if err != nil {
		return "", err
	}
	obey := func() { err = p.message(word, n) }
	if word == "create_snap" {
		p.quietly(uint32(n[1]), obey)
	} else {
		p.call(obey)
	}
	if err != nil {
		return "", failed(err, strings.Join(args, " ")+" failed")
	}
	return "", nil
}

func (p *pool) serviceable() error {
	if p.mode() >= modeOutOfMetadata {
		return dm.Errorf(syscall.EOPNOTSUPP, "unable to service pool target messages in READ_ONLY or FAIL mode")
	}
	return nil
}

func (p *pool) message(word string, n [2]uint64) error {
	if err := p.serviceable(); err != nil {
		return err
	}
	if p.short.meta || p.transaction.freed || p.md.Uncommitted() { // else a commit would only flush the data
		if err := p.tryCommit(); err != nil {
			return err
		}
	}
	return p.alone(func() error { return p.obey(word, n) }, func(error) bool { return true })
}

func parseMessage(args []string) (word string, n [2]uint64, err error) {
	word = strings.ToLower(args[0])
	count, ok := messageArgs[word]
	if !ok {
		return word, n, invalid("Unrecognised thin pool target message received: " + args[0])
	}
	if len(args) != count {
		return word, n, invalid(fmt.Sprintf("Message received with %d arguments instead of %d", len(args), count))
	}
	n, err = messageNumbers(word, args[1:])
	return word, n, err
}

// messageArgs gives the number of words of each message.
var messageArgs = map[string]int{
	"create_thin": 2, "create_snap": 3, "delete": 2, "set_transaction_id": 3,
	"reserve_metadata_snap": 1, "release_metadata_snap": 1,
}

// messageNumbers parses the arguments. They are device ids except in
// set_transaction_id.
func messageNumbers(word string, args []string) (n [2]uint64, err error) {
	for i, a := range args {
		v, err := dm.ParseUint64(a)
		switch {
		case word == "set_transaction_id" && err != nil:
			return n, invalid("set_transaction_id message: Unrecognised id " + a)
		case word != "set_transaction_id" && (err != nil || v > thinmeta.MaxID):
			return n, invalid("Message received with invalid device id: " + a)
		}
		n[i] = v
	}
	return n, nil
}

func (p *pool) obey(word string, n [2]uint64) error {
	switch word {
	case "create_thin":
		return p.md.CreateThin(uint32(n[0]))
	case "create_snap":
		return p.createSnap(uint32(n[0]), uint32(n[1]))
	case "delete":
		return p.delete(uint32(n[0]))
	case "set_transaction_id":
		return p.md.SetTransactionID(n[0], n[1])
	case "reserve_metadata_snap":
		return p.md.ReserveSnap()
	}
	return p.md.ReleaseSnap()
}

// createSnap creates a snapshot. From then on all blocks of the origin are shared, so
// its cache is cleared.
func (p *pool) createSnap(id, origin uint32) error {
	v := p.volumes[origin]
	if v == nil {
		return p.md.CreateSnap(id, origin)
	}
	p.change(v)
	err := p.md.CreateSnap(id, origin)
	v.cache.clear()
	return err
}
