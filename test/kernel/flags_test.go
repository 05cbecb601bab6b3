//go:build unix

package kernel

import (
	"flag"
	"testing"

	"udm/test/program"
)

var (
	update     = flag.Bool("update", false, "take the kernel's answers as the new golden answers")
	only       = flag.String("scripts", "", "names of the scripts to run, separated by commas; default all")
	udm        = flag.String("udm", "", "the udm program to test; default: built from the source")
	every      = flag.Uint64("every", 1, "ask the kernel one of so many scripts again; -first says with which one to begin")
	first      = flag.Uint64("first", 0, "the first script, modulo -every")
	full       = flag.Bool("kernel", false, "run many random scripts")
	seeds      = flag.Int("seeds", 0, "random scripts of each kind; default 1, with -kernel 8")
	crossSeeds = flag.Int("crossseeds", 0, "random scripts of each persistent kind that change hands; default 1, with -kernel 50")
	upgrades   = flag.Int("upgrades", 0, "how often the daemon is replaced under file systems; default 2, with -kernel 20")
	machines   = flag.String("machines", "", "folders of kernels for virtual machines, separated by spaces, which try ublk as well; debian-kernel.sh prints one")
	kills      = flag.Int("kills", 0, "how often it is killed under them; default 2, with -kernel 10")
)

func TestMain(m *testing.M) { program.Main(m) }

// number is what a flag says, or else few, or many with -kernel.
func number(given, few, many int) int {
	switch {
	case given > 0:
		return given
	case *full:
		return many
	}
	return few
}
