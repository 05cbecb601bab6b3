package clone

const doc = `clone: a copy of a source that can be used while it is made

Table:
  clone METADATA DEST SOURCE REGION [N FEATURE... [M NAME VALUE...]]
    METADATA  the device with the metadata; formatted if it begins with 4 KiB of
              zeroes
    DEST      what becomes the copy
    SOURCE    what is copied; it is only read
    REGION    sectors that are copied at a time: a power of two, 8 to 2097152
    N         number of features, up to 2:
      no_hydration         nothing is copied in the background, until the message
                           enable_hydration
      no_discard_passdown  discards are not passed to DEST
    M         number of the words that follow, even:
      hydration_threshold N   regions that are copied in the background at a time; 1
      hydration_batch_size N  contiguous regions that are copied as one; 1
  A region that is on DEST is hydrated. Reads of others go to SOURCE. A write to one
  waits until it is copied, unless it covers all of it. A discard of whole regions
  makes them hydrated without a copy.

Status (dmsetup status):
  8 USED/TOTAL REGION HYDRATED/REGIONS HYDRATING N FEATURE... 4 hydration_threshold T
  hydration_batch_size B MODE
    8           sectors of a metadata block
    USED/TOTAL  metadata blocks
    REGION      sectors of a region
    HYDRATED/REGIONS  regions
    HYDRATING   regions that are being copied
    MODE        rw, or ro: the metadata could not be written; writes to regions that
                are not hydrated fail, and so do flushes
  or "Fail": the metadata could not be read again either; all I/O fails.
  An event is raised when all regions are hydrated, and with each change of MODE.

Messages:
  enable_hydration, disable_hydration   copy in the background, or not
  hydration_threshold N
  hydration_batch_size N

Parameters:
  dm_clone.clone_hydration_throttle     percent of the time in which regions may be
                                        copied

Example: 1 GiB from a server, in regions of 64 KiB, 16 at a time
  0 2097152 clone /srv/meta /srv/copy.img nbd://server/base 128 0 4
  hydration_threshold 16 hydration_batch_size 4
`
