package leaf

import "testing"

// Names that open the same file have one base.
func TestBase(t *testing.T) {
	a, b := newFile(t, "a", 4096), newFile(t, "b", 4096)
	base := func(name string) string {
		src, err := resolve(name)
		if err != nil {
			t.Fatal(err)
		}
		return src.base()
	}
	for _, name := range []string{"direct:" + a, "part:1:" + a, "part:2:direct:" + a, "block=4096:" + a, "block=4096:part:3:" + a} {
		if base(name) != base(a) || base(name) == base(b) {
			t.Errorf("the base of %s is %s, that of the file %s", name, base(name), base(a))
		}
	}
	if base("part:1:mem:1M") == base("part:1:mem:2M") {
		t.Error("two disks in memory have the same base")
	}
}
