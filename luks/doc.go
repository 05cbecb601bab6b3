// Package luks reads, makes and changes the headers of LUKS disks, version 1 and 2:
// who has a passphrase gets the key of the disk, which the target crypt decrypts
// with. The formats are told in docs/formats/luks.md.
//
//	c, err := luks.Open(e, dev, luks.Options{})
//	key, err := c.Unlock(passphrase, luks.AnySlot)
//	defer key.Close()
//	line, sectors, err := c.Line(key, "/srv/disk.img", size)   // a table for crypt
//
// # What a power cut leaves
//
// Each step below is durable before the next one begins.
//
//	format   old headers zeroed, key material, header   a rest of the old header, none,
//	                                                    or the new one
//	add      key material, header                       without or with the new key
//	change   new key material, header, old one wiped    the old or the new passphrase
//	remove   key material wiped, header                 the key works or does not; a
//	                                                    slot that is left empty can
//	                                                    be removed again
//	restore  key material, header                       a whole header; until the end
//	                                                    the backup is still needed
//
// A header of version 2 is written to one copy, then to the other, so one is whole
// at each moment. One of version 1 has a single copy, of which the block that makes a
// slot valid is written last.
//
// # Costs
//
// What a header asks of whoever opens it is bounded by [Limits], since a header may
// come from anybody: it is refused in words before any memory is taken.
//
// Secrets are overwritten when they are not needed any more. No error tells them.
//
// A Container is for one goroutine at a time.
package luks
