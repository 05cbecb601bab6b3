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
	for name, want := range map[string]error{"m.b": nil, "m.shared": nil, "shared": syscall.ENOENT, "": syscall.ENOENT} {
		p, err := dm.FindParam(ps, name)
		if !errors.Is(err, want) || err == nil && p.Name != name {
			t.Errorf("%s: %v, %v", name, p, err)
		}
	}
	shared.Set(1<<32 - 1)
	if shared.Get() != 1<<32-1 {
		t.Error(shared.Get())
	}
}
