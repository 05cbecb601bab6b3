package rbddev

import (
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for name, want := range map[string]Options{
		"p/i":   {Pool: "p", Image: "i"},
		"p/i@s": {Pool: "p", Image: "i", Snap: "s"},
		"p/n/i@s:conf=/etc/c.conf:id=bob:rados_osd_op_timeout=30:keyring=/k": {
			Pool: "p", Namespace: "n", Image: "i", Snap: "s", Conf: "/etc/c.conf", User: "bob",
			Set: [][2]string{{"rados_osd_op_timeout", "30"}, {"keyring", "/k"}},
		},
	} {
		want.Name = "rbd:" + name
		if got, err := Parse(name); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for name, want := range map[string]string{
		"":                          "POOL/IMAGE",
		"i":                         "POOL/IMAGE",
		"/i":                        "POOL/IMAGE",
		"p/":                        "POOL/IMAGE",
		"p/i@":                      "POOL/IMAGE",
		"p//i":                      "namespace",
		"p/a/b/c":                   "POOL/IMAGE",
		"p/i:conf":                  "OPTION=VALUE",
		"p/i:conf=":                 "OPTION=VALUE",
		"p/i:rbd_cache=true":        "rbd_cache cannot be set",
		"p/i:key=secret":            "keyring=",
		"p/i:mon_host=1.2.3.4:6789": `"6789" is not OPTION=VALUE`,
	} {
		if _, err := Parse(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
}
