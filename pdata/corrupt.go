package pdata

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// Corrupt says that a metadata block is not what it must be.
type Corrupt struct {
	Block  uint64
	Path   []uint64 // blocks from the root of the tree to Block, Block included; may be just Block
	Tree   string   // what the path leads through; may be empty
	Reason string
}

func (c *Corrupt) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "corrupt metadata: block %d", c.Block)
	if c.Tree != "" || len(c.Path) > 1 {
		b.WriteString(" (")
		b.WriteString(c.Tree)
		for i, p := range c.Path {
			if i > 0 || c.Tree != "" {
				b.WriteByte('/')
			}
			fmt.Fprint(&b, p)
		}
		b.WriteByte(')')
	}
	return b.String() + ": " + c.Reason
}

func corrupt(block uint64, format string, args ...any) *Corrupt {
	return &Corrupt{Block: block, Path: []uint64{block}, Reason: fmt.Sprintf(format, args...)}
}

// corruptOf is the Corrupt in err, nil for none. It does not allocate in the
// ordinary cases.
func corruptOf(err error) *Corrupt {
	switch err.(type) {
	case nil, syscall.Errno:
		return nil
	}
	var c *Corrupt
	errors.As(err, &c)
	return c
}

// under puts a block before those that err's path names already.
func under(err error, block uint64) error {
	if c := corruptOf(err); c != nil && (len(c.Path) == 0 || c.Path[0] != block) {
		c.Path = append([]uint64{block}, c.Path...)
	}
	return err
}

// In names the tree that err's path leads through; names nest. It changes err.
func In(tree string, err error) error {
	if c := corruptOf(err); c != nil {
		if c.Tree != "" {
			tree += "/" + c.Tree
		}
		c.Tree = tree
	}
	return err
}
