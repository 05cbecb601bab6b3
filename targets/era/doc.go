package era

const doc = `era: tells which blocks were written since when

Table:
  era METADATA ORIGIN BLOCK
    METADATA  the device with the metadata; formatted if it begins with 4 KiB of
              zeroes
    ORIGIN    the device that all I/O goes to, at the same sectors
    BLOCK     sectors in a block, a multiple of 8; cannot be changed later
  The target begins at sector 0.

Status (dmsetup status):
  8 USED/TOTAL ERA SNAP
    8           sectors of a metadata block
    USED/TOTAL  metadata blocks
    ERA         the running era
    SNAP        block of the metadata snapshot, - for none
  or "Error": the metadata cannot be read or written.

Messages:
  checkpoint          begin a new era. When the message has returned, whatever is
                      written later is written in that era or a later one
  take_metadata_snap  begin a new era, and keep the metadata as they are then for
                      era_invalidate --metadata-snapshot
  drop_metadata_snap  give them up

Every resume begins a new era, too. Which blocks were written since era N says
udm changes NAME --since N while the device is in use, and
udm era invalidate --written-since N METADATA when it is not.

Example: a disk of 1 GiB, told in blocks of 64 KiB
  0 2097152 era /srv/a.era /srv/a.img 128
`
