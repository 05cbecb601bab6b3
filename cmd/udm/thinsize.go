package main

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"udm/blk"
	"udm/targets/thin/thintools"
)

// unitLetters are the units of thin_metadata_size above bytes: small letters for
// powers of 1024, capitals for powers of 1000.
const unitLetters = "kmgtpezy"

var unitNames = [2][8]string{
	{"kibibytes", "mebibytes", "gibibytes", "tebibytes", "pebibytes", "exbibytes", "zebibytes", "yobibytes"},
	{"kilobytes", "megabytes", "gigabytes", "terabytes", "petabytes", "exabytes", "zettabytes", "yottabytes"},
}

// sizeUnit returns the name of a unit and its size in bytes.
func sizeUnit(letter string) (name string, bytes float64, ok bool) {
	switch letter {
	case "b", "B":
		return "bytes", 1, true
	case "s", "S":
		return "sectors", blk.SectorSize, true
	}
	i := strings.Index(unitLetters, strings.ToLower(letter))
	if len(letter) != 1 || i < 0 {
		return "", 0, false
	}
	step, kind := 1024., 0
	if letter != strings.ToLower(letter) {
		step, kind = 1000, 1
	}
	bytes = 1
	for range i + 1 {
		bytes *= step
	}
	return unitNames[kind][i], bytes, true
}

// metadataNumber is a number of thin_metadata_size with a unit, and the text in which
// it is repeated.
type metadataNumber struct {
	plain float64 // bytes per unit of a number without a unit
	value float64 // bytes
	text  string
}

func (n *metadataNumber) String() string { return n.text }
func (n *metadataNumber) Type() string   { return "NUMBER[UNIT]" }

func (n *metadataNumber) Set(s string) error {
	digits := strings.TrimRight(s, "bBsSkKmMgGtTpPeEzZyY")
	number, err := strconv.ParseUint(digits, 10, 64)
	name, unit := "", n.plain
	if n.plain == blk.SectorSize {
		name = "sectors"
	}
	if letter := s[len(digits):]; letter != "" {
		var ok bool
		if name, unit, ok = sizeUnit(letter); !ok {
			return fmt.Errorf("%q is not a unit", letter)
		}
	}
	if err != nil {
		return fmt.Errorf("%q is not a number with a unit", s)
	}
	n.value, n.text = float64(number)*unit, digits+name
	return nil
}

func thinMetadataSizeProgram() *cobra.Command {
	block, pool, thins := metadataNumber{plain: blk.SectorSize}, metadataNumber{plain: blk.SectorSize}, metadataNumber{plain: 1}
	var unit, numeric string
	cmd := &cobra.Command{
		Use:   "size -b SIZE -s SIZE -m NUMBER",
		Short: "Print how large the metadata of a pool should be",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, n := range []struct {
				name string
				n    metadataNumber
			}{{"--block-size", block}, {"--pool-size", pool}, {"--max-thins", thins}} {
				if n.n.value == 0 {
					return usagef(cmd, "%s is missing", n.name)
				}
			}
			if bits.OnesCount64(uint64(block.value)) != 1 {
				return usagef(cmd, "the block size is not a power of two")
			}
			name, bytes, ok := sizeUnit(unit)
			if !ok {
				return usagef(cmd, "%q is not a unit", unit)
			}
			size := float64(thintools.MetadataSize(uint64(block.value), uint64(pool.value), uint64(thins.value)))
			text := strconv.FormatFloat(size/bytes, 'f', 2, 64)
			if size/bytes == math.Trunc(size/bytes) {
				text = strconv.FormatFloat(size/bytes, 'f', 0, 64)
			}
			suffix, ok := map[string]string{"": "", "value": "", "short": unit, "long": name}[numeric]
			if !ok {
				return usagef(cmd, "--numeric-only must be short or long, not %s", numeric)
			}
			if numeric != "" {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), text+suffix)
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "thin_metadata_size - %s %s estimated metadata area size for \"--block-size=%s --pool-size=%s --max-thins=%s\"\n",
				text, name, block.text, pool.text, thins.text)
			return err
		},
	}
	fl := cmd.Flags()
	fl.VarP(&block, "block-size", "b", "size of the pool's blocks; without a unit in sectors")
	fl.VarP(&pool, "pool-size", "s", "size of the pool's data device; without a unit in sectors")
	fl.VarP(&thins, "max-thins", "m", "maximum number of volumes and snapshots")
	fl.StringVarP(&unit, "unit", "u", "s", "unit of the answer: b, s, or one of "+unitLetters+" (powers of 1024; capitals: of 1000)")
	fl.StringVarP(&numeric, "numeric-only", "n", "", "print the number only, or with the unit's short or long name")
	fl.Lookup("numeric-only").NoOptDefVal = "value"
	return cmd
}
