// Package luks reads, creates and changes the headers of LUKS disks, version 1 and 2.
// A passphrase opens the disk's key, with which the target crypt decrypts the disk.
// docs/formats/luks.md describes the formats.
//
//	c, err := luks.Open(e, dev, luks.Options{})
//	key, err := c.Unlock(passphrase, luks.AnySlot)
//	defer key.Close()
//	line, sectors, err := c.Line(key, "/srv/disk.img", size)   // a table for crypt
//
// # What a power cut leaves
//
// Each step is durable before the next one starts.
//
//	format   old headers zeroed, key material, header   a rest of the old header, none,
//	                                                    or the new one
//	add      key material, header                       without or with the new key
//	change   new key material, header, old one wiped    the old or the new passphrase
//	remove   key material wiped, header                 the key works or does not; an
//	                                                    emptied slot can be removed
//	                                                    again
//	restore  key material, header                       a valid header; keep the backup
//	                                                    until the end
//
// A header of version 2 is written to one copy, then to the other, so one is always
// valid. A header of version 1 has a single copy; the block that makes a slot valid
// is written last.
//
// # Costs
//
// A header may come from anybody, so [Limits] bounds the cost of opening it: a header
// that asks for too much is refused before memory is allocated.
//
// Secrets are overwritten as soon as they are not needed. Errors never contain them.
//
// A Container must be used by one goroutine at a time.
package luks
