package dm_test

import (
	"errors"
	"syscall"
	"testing"

	"udm/dm"
)

func TestParams(t *testing.T) {
	shared := dm.NewParam("m.shared", 7, "")
	types := []*dm.Type{
		{Name: "b", Params: []*dm.Param{shared, dm.NewParam("m.b", 1, "")}},
		{Name: "a", Params: []*dm.Param{shared}}, {Name: "c"},
	}
	ps := dm.Params(types...)
	if len(ps) != 2 || ps[0].Name != "m.b" || ps[1] != shared {
		t.Fatalf("%d parameters", len(ps))
	}
	for _, c := range []struct {
		name, text string
		want       error
		value      uint32
	}{
		{"m.shared", "0", nil, 0},
		{"m.shared", "0x10", nil, 16},
		{"m.shared", "4294967295", nil, 1<<32 - 1},
		{"m.shared", "4294967296", syscall.EINVAL, 1<<32 - 1},
		{"m.shared", "-1", syscall.EINVAL, 1<<32 - 1},
		{"m.shared", "", syscall.EINVAL, 1<<32 - 1},
		{"shared", "1", syscall.ENOENT, 1<<32 - 1},
	} {
		if err := dm.SetParam(ps, c.name, c.text); !errors.Is(err, c.want) || shared.Get() != c.value {
			t.Errorf("%s=%s: %v, %d", c.name, c.text, err, shared.Get())
		}
	}
}
