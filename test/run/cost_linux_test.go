package run

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"udm/test/need"
)

// BenchmarkCalls measures what intercepted calls cost a program:
//
//	go test ./test/run -run '^$' -bench Calls -benchtime 1x
func BenchmarkCalls(b *testing.B) {
	need.Tools(b, "python3")
	r := newRig(b)
	text, err := os.ReadFile("testdata/cost.py")
	r.must(err)
	r.must(os.WriteFile(r.dir+"/cost.py", text, 0o644))
	for b.Loop() {
		out := r.do(`truncate -s 64M a.img
			$UDM run --private --disk sda=a.img -- sh -ec 'dmsetup create d --table "0 2048 linear /dev/sda 0"; python3 cost.py'`)
		for line := range strings.Lines(out) {
			var name string
			var median, low float64
			_, err := fmt.Sscan(line, &name, &median, &low)
			r.must(err)
			b.ReportMetric(median, "µs/"+name)
			b.ReportMetric(low, "µs-p10/"+name)
		}
	}
}
