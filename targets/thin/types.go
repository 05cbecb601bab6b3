package thin

import "udm/dm"

// PoolType is the target type "thin-pool". Pass it to dm.NewControl.
func PoolType() *dm.Type {
	return &dm.Type{
		Name: "thin-pool", Version: [3]uint32{1, 22, 0},
		Features: dm.Singleton | dm.AlwaysWriteable | dm.Immutable,
		New:      newPoolTarget, Parse: dm.Parser(ParsePoolLine), ParseStatus: dm.StatusParser(ParsePoolStatus),
		Params: params(), Doc: poolDoc,
	}
}

// The parameters of the kernel module, and one more.
const (
	noSpaceParam  = "dm_thin_pool.no_space_timeout"
	throttleParam = "dm_thin_pool.snapshot_copy_throttle"
	deleteParam   = "dm_thin_pool.delete_portion"
)

func params() []*dm.Param {
	return []*dm.Param{
		dm.NewParam(noSpaceParam, 60, "seconds that writes wait for space once the pool is full; 0: for ever"),
		dm.NewParam(throttleParam, 100, "percent of the time in which blocks may be copied or zeroed"),
		dm.NewParam(deleteParam, portion, "mapped blocks of a deleted volume that are removed before other I/O is served again"),
	}
}

// Type is the target type "thin". Pass it to dm.NewControl together with PoolType.
func Type() *dm.Type {
	return &dm.Type{
		Name: "thin", Version: [3]uint32{1, 22, 0},
		New: newThin, Parse: dm.Parser(ParseThinLine), ParseStatus: dm.StatusParser(ParseThinStatus), Doc: thinDoc,
	}
}

const poolDoc = `thin-pool: space that thin volumes share

Table:
  thin-pool METADATA DATA BLOCK LOW [N FEATURE...]
    METADATA  the device that holds the mappings; zero its first 4 KiB to make a
              new pool; about 64 bytes per block in use, at least 2 MiB; at most
              15.875 GiB are used
    DATA      the device that holds the blocks
    BLOCK     sectors in a block: 128 (64 KiB) to 2097152 (1 GiB), a multiple of
              128. Small is best for many snapshots, large for plain provisioning.
              It can never be changed.
    LOW       an event is raised when this many blocks are free; 0: when none is
    N         number of the words that follow, up to 4:
      skip_block_zeroing   new blocks show what the data device held before
      ignore_discard       discards are not supported at all
      no_discard_passdown  discards free blocks but are not passed to DATA
      read_only            the metadata is not changed
      error_if_no_space    writes that find no free block fail; without it they
                           wait 60 seconds for the pool to grow before they fail
  The target's length in whole blocks is the size of the pool. It may grow.

Messages (dmsetup message POOL 0 ...):
  create_thin ID                    an empty volume; ID is 0 to 16777215
    create_snap ID ORIGIN             a snapshot of the volume ORIGIN, whose I/O is
                                    held back for a moment
    delete ID                         remove a volume that no table uses; the space
                                    of a large one becomes free gradually
    set_transaction_id OLD NEW        change the number in the status line
    reserve_metadata_snap             keep the present metadata for reading
    release_metadata_snap             stop keeping it

Status (dmsetup status):
  TRANSACTION USED/METADATA USED/DATA HELD MODE DISCARD NOSPACE CHECK THRESHOLD
    METADATA  blocks of 4 KiB; those reserved for commits count as used
    DATA      blocks
    HELD      block where the kept metadata starts, or -
    MODE      rw, ro or out_of_data_space
    DISCARD   ignore_discard, discard_passdown or no_discard_passdown
    NOSPACE   error_if_no_space or queue_if_no_space
    CHECK     needs_check if the metadata must be checked before use, or -
    THRESHOLD number of free metadata blocks at which an event is raised
  or Fail.

Example: 10 GiB of data in blocks of 64 KiB
  0 20971520 thin-pool /srv/meta.img /srv/data.img 128 1024
`

const thinDoc = `thin: a volume of a thin-pool

Table:
  thin POOL ID [ORIGIN]
    POOL    the pool's mapped device
    ID      the volume's number in the pool, made by create_thin or create_snap
    ORIGIN  a device outside the pool whose content the volume starts with; it
            is never written and must not change
  The target's length is free: a block takes space from the pool when it is first
  written. Discards of whole blocks give the space back.

Status (dmsetup status):
  MAPPED HIGHEST
    MAPPED   sectors of mapped blocks
    HIGHEST  last mapped sector, or -
  or Fail.

Messages:
  none

Example: a volume of 1 TiB
  0 2147483648 thin /dev/mapper/pool 0
`
