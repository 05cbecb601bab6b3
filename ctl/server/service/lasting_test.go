package service

import (
	"context"
	"strings"
	"testing"

	"udm/ctl"
)

// Tables are saved with names that last.
func TestLastingNames(t *testing.T) {
	s := started(t, t.TempDir())
	defer ended(t, s)
	if err := s.Restore(context.Background()); err != nil {
		t.Fatal(err)
	}
	for name, table := range map[string]string{"low": "0 2048 linear mem:1M 0", "bare": ""} {
		minor := map[string]uint32{"low": 0, "bare": 1}[name]
		if _, err := s.Create(context.Background(), ctl.Create{Name: name, Minor: &minor, Table: table}); err != nil {
			t.Fatal(err)
		}
	}
	for in, want := range map[string]string{
		"linear /dev/mapper/low 007":   "linear 254:0 7",
		"linear /dev/dm-0 0":           "linear 254:0 0",
		"linear 254:0 007":             "linear 254:0 007",
		"linear 1:0 0":                 "linear mem:1M 0",
		"linear /dev/mapper/nosuch 0":  "linear /dev/mapper/nosuch 0",
		"linear /dev/mapper/bare 0":    "linear /dev/mapper/bare 0",
		"linear /dev/dm-7 0":           "linear /dev/dm-7 0",
		"linear 254:7 0":               "linear 254:7 0",
		`linear /with\ blank/1:0 0`:    `linear /with\ blank/1:0 0`,
		"linear 1:0x 0":                "linear 1:0x 0",
		"linear 1:0 1:0":               "linear 1:0 1:0", // refused
		"error 1:0":                    "error 1:0",      // no device
		"nosuch 1:0":                   "nosuch 1:0",
		`snapshot 1:0 /a\ b p 8`:       `snapshot mem:1M /a\ b P 8`,
		"snapshot-merge 1:0 254:0 N 8": "snapshot-merge mem:1M 254:0 N 8",
		"snapshot-origin /dev/dm-0":    "snapshot-origin 254:0",
		"thin-pool 1:0 254:0 128 0 0":  "thin-pool mem:1M 254:0 128 0 0",
		"thin /dev/mapper/low 5 1:0":   "thin 254:0 5 mem:1M",
		"zero":                         "zero",
	} {
		specs, err := s.state.Parse("0 8 " + in)
		if err != nil || len(specs) != 1 || strings.TrimSpace(specs[0].String()) != "0 8 "+want {
			t.Errorf("%q becomes %q, %v; want %q", in, specs, err, want)
		}
	}
}
