//go:build unix

package kernel

import (
	"flag"
	"os"
	"testing"
)

var (
	update     = flag.Bool("update", false, "take the kernel's answers as the new golden answers")
	only       = flag.String("scripts", "", "names of the scripts to run, separated by commas; default all")
	program    = flag.String("udm", "", "the udm program to test; default: built from the source")
	full       = flag.Bool("kernel", false, "fail without a kernel, and outside CI run many random scripts")
	seeds      = flag.Int("seeds", 0, "random scripts of each kind; default 2, with -kernel 8")
	crossSeeds = flag.Int("crossseeds", 0, "random scripts of each persistent kind that change hands; default 5, with -kernel 50")
)

func TestMain(m *testing.M) { Main(m, func() bool { return *full }) }

// number is what a flag says, or else few, or many with -kernel outside CI.
func number(given, few, many int) int {
	switch {
	case given > 0:
		return given
	case *full && os.Getenv("CI") != "true":
		return many
	}
	return few
}
