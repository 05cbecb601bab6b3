package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"udm/luks"
)

func luksDumpCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "dump DISK",
		Short:   "Print the header of an encrypted disk, without keys",
		Example: `  udm luks dump disk.img`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withContainer(cmd, args[0], false, func(c *luks.Container) error {
				d := dumpOf(c.Header)
				if wantsJSON(cmd) {
					return printJSON(cmd, d)
				}
				return d.print(cmd)
			})
		},
	}
	addJSON(cmd)
	return cmd
}

// luksDump is a header in JSON output.
type luksDump struct {
	Version    int             `json:"version"`
	UUID       string          `json:"uuid"`
	Label      string          `json:"label,omitempty"`
	Subsystem  string          `json:"subsystem,omitempty"`
	SeqID      uint64          `json:"sequence,omitempty"`
	Encryption string          `json:"encryption"`
	Integrity  string          `json:"integrity,omitempty"`
	KeyBits    int             `json:"keyBits"`
	SectorSize int             `json:"sectorBytes"`
	Offset     uint64          `json:"offsetBytes"`
	Size       uint64          `json:"sizeBytes,omitempty"` // 0: to the end of the disk
	Flags      []string        `json:"flags,omitempty"`
	Slots      []luksDumpSlot  `json:"slots"`
	Tokens     []luksDumpToken `json:"tokens,omitempty"`
	Damaged    string          `json:"damaged,omitempty"`
}

type luksDumpSlot struct {
	Slot       int    `json:"slot"`
	PBKDF      string `json:"pbkdf"`
	Hash       string `json:"hash,omitempty"`
	Iterations uint64 `json:"iterations,omitempty"`
	Time       uint32 `json:"time,omitempty"`
	MemoryKiB  uint32 `json:"memoryKiB,omitempty"`
	CPUs       uint32 `json:"cpus,omitempty"`
	Encryption string `json:"encryption"`
	Offset     uint64 `json:"offsetBytes"`
	Size       uint64 `json:"sizeBytes"`
	Priority   int    `json:"priority"`
}

type luksDumpToken struct {
	Token int             `json:"token"`
	JSON  json.RawMessage `json:"json"`
}

func dumpOf(h *luks.Header) luksDump {
	s := h.Segment
	d := luksDump{Version: h.Version, UUID: h.UUID, Label: h.Label, Subsystem: h.Subsystem, SeqID: h.SeqID, Encryption: s.Encryption, Integrity: s.Integrity, KeyBits: s.KeySize * 8,
		SectorSize: s.SectorSize, Offset: s.Offset, Size: s.Size, Flags: h.Flags, Slots: []luksDumpSlot{}, Damaged: h.Damaged}
	for _, s := range h.Slots {
		k := s.KDF
		d.Slots = append(d.Slots, luksDumpSlot{s.ID, k.Type, k.Hash, k.Iterations, k.Time, k.Memory, k.CPUs, s.Area.Encryption, s.Area.Offset, s.Area.Size, s.Priority})
	}
	for _, id := range slices.Sorted(maps.Keys(h.Tokens)) {
		d.Tokens = append(d.Tokens, luksDumpToken{id, json.RawMessage(h.Tokens[id])})
	}
	return d
}

func (d *luksDump) print(cmd *cobra.Command) error {
	w := cmd.OutOrStdout()
	size := "to the end"
	if d.Size > 0 {
		size = formatSectors(d.Size / 512)
	}
	rows := [][]string{{"VERSION", "UUID", "LABEL", "CIPHER", "INTEGRITY", "KEY", "SECTORS", "DATA", "SIZE", "FLAGS"},
		{fmt.Sprint(d.Version), d.UUID, d.Label, d.Encryption, d.Integrity, fmt.Sprintf("%d bits", d.KeyBits), fmt.Sprintf("%d bytes", d.SectorSize),
			fmt.Sprintf("from byte %d", d.Offset), size, strings.Join(d.Flags, ",")}}
	if err := printTable(w, rows); err != nil {
		return err
	}
	slots := [][]string{{"SLOT", "PBKDF", "HASH", "COST", "CIPHER", "PRIORITY"}}
	for _, s := range d.Slots {
		cost := fmt.Sprintf("%d iterations", s.Iterations)
		if s.Iterations == 0 {
			cost = fmt.Sprintf("%d KiB, %d times, %d cpus", s.MemoryKiB, s.Time, s.CPUs)
		}
		slots = append(slots, []string{fmt.Sprint(s.Slot), s.PBKDF, s.Hash, cost, s.Encryption, []string{"ignore", "", "first"}[max(0, min(s.Priority, 2))]})
	}
	fmt.Fprintln(w)
	if err := printTable(w, slots); err != nil {
		return err
	}
	for _, t := range d.Tokens {
		if _, err := fmt.Fprintf(w, "\ntoken %d: %s\n", t.Token, t.JSON); err != nil {
			return err
		}
	}
	return nil
}
