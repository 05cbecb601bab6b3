// Command bench measures udm and its alternatives in the same run, and writes a report as
// text, Markdown, JSON and plots.
//
// Machines differ, so only ratios should be compared. The cases of a group run in turn,
// round after round, and each figure is the median of its rounds, with the lowest and the
// highest. The claims at the end of the report are what udm promises. If a claim does not
// hold, the report says so; the command does not fail.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime/pprof"
	"strings"
)

// settings are the flags.
type settings struct {
	quick   bool
	rounds  int
	only    string
	out     string
	profile string
}

// sections are the parts of a run, in order.
var sections = []struct {
	name string
	run  func(*report) error
}{
	{"bio", benchBio},
	{"snapshot", benchSnapshots},
	{"thin", benchThin},
	{"pools", benchPools},
	{"tiers", benchTiers},
	{"copy", benchCopies},
	{"nbd", benchNBD},
	{"vhost", benchVhost},
	{"fuse", benchFUSE},
	{"files", benchFiles},
	{"scale", benchScale},
	{"volumes", benchVolumes},
	{"far", benchFar},
	{"rest", benchRest},
}

func main() {
	var s settings
	flag.BoolVar(&s.quick, "quick", false, "fewer rounds and cases: about two minutes")
	flag.IntVar(&s.rounds, "rounds", 5, "rounds of each case")
	flag.StringVar(&s.only, "only", "", "sections to run, with commas between: bio,snapshot,thin,pools,tiers,copy,nbd,vhost,fuse,files,scale,volumes,far,rest")
	flag.StringVar(&s.out, "out", "bench/out", "directory for the report")
	flag.StringVar(&s.profile, "profile", "", "write a CPU profile of this process to a file")
	flag.Parse()
	if s.quick {
		s.rounds = min(s.rounds, 2)
	}
	if err := run(s); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(s settings) error {
	if s.profile != "" {
		f, err := os.Create(s.profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	r := newReport(s)
	for _, sec := range sections {
		if s.only != "" && !strings.Contains(","+s.only+",", ","+sec.name+",") {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s …\n", sec.name)
		if err := sec.run(r); err != nil {
			return fmt.Errorf("%s: %w", sec.name, err)
		}
	}
	return r.write(os.Stdout)
}
