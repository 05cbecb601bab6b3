package thin

import (
	"fmt"
	"strings"
	"syscall"

	"udm/dm"
)

func (pt *poolTarget) Status(kind dm.StatusKind, flags dm.StatusFlags) string {
	if kind == dm.TableText {
		return fmt.Sprintf("%s %s %d %d %s", pt.meta.Name(), pt.data.Name(), pt.pool.blockSectors, pt.lowWater, pt.requested.words())
	}
	var s string
	pt.pool.call(func() {
		// Figures are those of a commit, if one may be made.
		if pt.pool.mode() == modeFail {
			s = "Fail"
			return
		}
		if flags&dm.StatusNoflush == 0 && !pt.t.Device().Suspended() {
			_ = pt.pool.commit()
		}
		s = pt.info()
	})
	return s
}

// info is the status line. When the commit just before it broke the metadata for
// good there are no figures to show.
func (pt *poolTarget) info() string {
	p, md := pt.pool, pt.pool.md
	if md.Failed() {
		return "Error"
	}
	held := "-"
	if b := md.HeldRoot(); b != 0 {
		held = fmt.Sprint(b)
	}
	total, data := md.MetadataBlocks(), md.DataBlocks()
	return fmt.Sprintf("%d %d/%d %d/%d %s %s %s %s %s %d ", md.TransactionID(),
		total-md.FreeMetadata(), total, data-md.FreeData(), data, held, p.mode(), p.features.discardWord(),
		p.features.noSpaceWord(), checkWord(md.NeedsCheck()), pt.metadataThreshold())
}

func (f features) discardWord() string {
	switch {
	case !f.discard:
		return "ignore_discard"
	case f.passdown:
		return "discard_passdown"
	}
	return "no_discard_passdown"
}

func (f features) noSpaceWord() string {
	if f.errorIfNoSpace {
		return "error_if_no_space"
	}
	return "queue_if_no_space"
}

func checkWord(needsCheck bool) string {
	if needsCheck {
		return "needs_check"
	}
	return "-"
}

// words are the features as a table has them, with their number in front and a
// blank behind each.
func (f features) words() string {
	var b strings.Builder
	n := 0
	add := func(on bool, word string) {
		if on {
			n++
			b.WriteString(word + " ")
		}
	}
	add(!f.zero, "skip_block_zeroing")
	add(!f.discard, "ignore_discard")
	add(!f.passdown, "no_discard_passdown")
	add(f.readOnly, "read_only")
	add(f.errorIfNoSpace, "error_if_no_space")
	return fmt.Sprintf("%d %s", n, b.String())
}

// Message carries out a message on the owner. Everything that succeeds is
// committed.
func (pt *poolTarget) Message(args []string) (string, error) {
	var err error
	pt.pool.call(func() { err = pt.pool.message(args) })
	return "", err
}

func (p *pool) message(args []string) error {
	if p.mode() >= modeOutOfMetadata {
		return dm.Errorf(syscall.EOPNOTSUPP, "unable to service pool target messages in READ_ONLY or FAIL mode")
	}
	word := strings.ToLower(args[0])
	count, ok := messageArgs[word]
	if !ok {
		return invalid("Unrecognised thin pool target message received: " + args[0])
	}
	if len(args) != count {
		return invalid(fmt.Sprintf("Message received with %d arguments instead of %d", len(args), count))
	}
	n, err := messageNumbers(word, args[1:])
	if err != nil {
		return err
	}
	if err := p.obey(word, n); err != nil {
		return failed(err, strings.Join(args, " ")+" failed")
	}
	_ = p.commit() // what is wrong shows in the pool's mode
	return nil
}

// messageArgs are the messages and their number of words.
var messageArgs = map[string]int{
	"create_thin": 2, "create_snap": 3, "delete": 2, "set_transaction_id": 3,
	"reserve_metadata_snap": 1, "release_metadata_snap": 1,
}

// messageNumbers reads the words behind the first. They are device ids but in
// one message.
func messageNumbers(word string, args []string) (n [2]uint64, err error) {
	for i, a := range args {
		v, ok := parseNumber(a)
		switch {
		case word == "set_transaction_id" && !ok:
			return n, invalid("set_transaction_id message: Unrecognised id " + a)
		case word != "set_transaction_id" && (!ok || v > maxID):
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
		return p.md.DeleteThin(uint32(n[0]))
	case "set_transaction_id":
		return p.md.SetTransactionID(n[0], n[1])
	case "reserve_metadata_snap":
		_ = p.commit()
		return p.md.ReserveSnap()
	}
	return p.md.ReleaseSnap()
}

// createSnap makes a snapshot. All blocks of the origin are shared from then on,
// which its cache does not know.
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
