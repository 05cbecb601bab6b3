package pdata

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"udm/blk"
)

// Corrupt is the error of a damaged metadata block.
type Corrupt struct {
	Block  uint64
	Path   []uint64 // blocks from the root of the tree to Block inclusive; may be just Block
	Tree   string   // the trees on the path; may be empty
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

// corruptOf returns the Corrupt in err, or nil. It does not allocate in the
// common cases.
func corruptOf(err error) *Corrupt {
	switch err.(type) {
	case nil, syscall.Errno:
		return nil
	}
	var c *Corrupt
	errors.As(err, &c)
	return c
}

// ErrnoOf returns the kernel's errno for an error of metadata: EILSEQ for damage, that of
// the status if a device failed, 0 for nil, EINVAL if err has none.
func ErrnoOf(err error) syscall.Errno {
	var st blk.Status
	var bad *Corrupt
	var n syscall.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &st):
		return st.Errno()
	case errors.As(err, &bad):
		return syscall.EILSEQ
	case errors.As(err, &n):
		return n
	}
	return syscall.EINVAL
}

// under prepends a block to err's path.
func under(err error, block uint64) error {
	if c := corruptOf(err); c != nil && (len(c.Path) == 0 || c.Path[0] != block) {
		c.Path = append([]uint64{block}, c.Path...)
	}
	return err
}

// In names the tree that err's path goes through; names nest. It modifies err.
func In(tree string, err error) error {
	if c := corruptOf(err); c != nil {
		if c.Tree != "" {
			tree += "/" + c.Tree
		}
		c.Tree = tree
	}
	return err
}
