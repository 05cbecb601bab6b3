package secret

import (
	"bytes"
	"testing"
)

func TestTake(t *testing.T) {
	mine := []byte("the key")
	b := Take(mine)
	inside := b.Bytes()
	if string(inside) != "the key" || !bytes.Equal(mine, make([]byte, 7)) || b.Len() != 7 {
		t.Errorf("%q, and %q stays", inside, mine)
	}
	b.Close()
	b.Close()
	if b.Len() != 0 {
		t.Error("closed, it is there")
	}
	Take(nil).Close()
}
