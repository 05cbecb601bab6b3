package thin

import "udm/dm"

// PoolType is the target type "thin-pool", to be given to dm.NewControl.
func PoolType() *dm.Type {
	return &dm.Type{
		Name: "thin-pool", Version: [3]uint32{1, 22, 0},
		Features: dm.Singleton | dm.AlwaysWriteable | dm.Immutable,
		New:      newPoolTarget, Parse: dm.Parser(ParsePoolLine), ParseStatus: dm.StatusParser(ParsePoolStatus),
		Params: params(), Doc: poolDoc,
	}
}

// The parameters of the kernel module, and one that it does not have.
const (
	noSpaceParam  = "dm_thin_pool.no_space_timeout"
	throttleParam = "dm_thin_pool.snapshot_copy_throttle"
	deleteParam   = "dm_thin_pool.delete_portion"
)

func params() []*dm.Param {
	return []*dm.Param{
		dm.NewParam(noSpaceParam, 60, "seconds that writes wait for space, from when the pool is full; 0: for ever"),
		dm.NewParam(throttleParam, 100, "percent of the time in which blocks may be copied or zeroed"),
		dm.NewParam(deleteParam, portion, "mapped blocks of a deleted volume that are removed before other I/O has its turn"),
	}
}

// Type is the target type "thin", to be given to dm.NewControl beside PoolType.
func Type() *dm.Type {
	return &dm.Type{
		Name: "thin", Version: [3]uint32{1, 22, 0},
		New: newThin, Parse: dm.Parser(ParseThinLine), ParseStatus: dm.StatusParser(ParseThinStatus), Doc: thinDoc,
	}
}

const poolDoc = `thin-pool: space that thin volumes share

Table:
  thin-pool METADATA DATA BLOCK LOW [N FEATURE...]
    METADATA  the device that holds who has which block; zero its first 4 KiB
              to make a new pool; about 64 bytes for each block in use, at
              least 2 MiB, at most 15.875 GiB are used
    DATA      the device that holds the blocks
    BLOCK     sectors in a block: 128 (64 KiB) to 2097152 (1 GiB), a multiple of
              128. Small for many snapshots, large for plain provisioning. It
              never changes.
    LOW       an event is raised when so few blocks are free; 0: only when none is
    N         number of the words that follow, up to 4:
      skip_block_zeroing   new blocks show what the data device held before
      ignore_discard       discards are not supported at all
      no_discard_passdown  discards free blocks, DATA does not hear of it
      read_only            no change to the metadata
      error_if_no_space    writes that find no free block fail; else they wait
                           for 60 seconds for the pool to grow, then fail
  The target's length in whole blocks is the size of the pool. It may grow.

Messages (dmsetup message POOL 0 ...):
  create_thin ID                    an empty volume; ID is 0 to 16777215
  create_snap ID ORIGIN             a volume with the content of another one, whose
                                    I/O is held back for that moment
  delete ID                         remove a volume that no table uses; the space
                                    of a large one comes back little by little
  set_transaction_id OLD NEW        change the number in the status line
  reserve_metadata_snap             keep the metadata as they are now, for reading
  release_metadata_snap             give that up

Status (dmsetup status):
  TRANSACTION USED/METADATA USED/DATA HELD MODE DISCARD NOSPACE CHECK THRESHOLD
    METADATA  blocks of 4 KiB; those kept back for commits count as used
    DATA      blocks
    HELD      where the kept metadata begin, or -
    MODE      rw, ro or out_of_data_space
    DISCARD   ignore_discard, discard_passdown or no_discard_passdown
    NOSPACE   error_if_no_space or queue_if_no_space
    CHECK     needs_check if the metadata must be checked before use, or -
    THRESHOLD free metadata blocks that raise an event
  or Fail.

Example: 10 GiB of data in blocks of 64 KiB
  0 20971520 thin-pool /srv/meta.img /srv/data.img 128 1024
`

const thinDoc = `thin: a volume of a thin-pool

Table:
  thin POOL ID [ORIGIN]
    POOL    the pool's mapped device
    ID      the volume's number in the pool, made by create_thin or create_snap
    ORIGIN  a device outside of the pool whose content the volume begins with;
            it is never written and must not change
  The target's length is free: space is taken from the pool at the first write of
  each block. Discards of whole blocks give it back.

Status (dmsetup status):
  MAPPED HIGHEST
    MAPPED   sectors that have been given space
    HIGHEST  the last of them, or -
  or Fail.

Messages:
  none

Example: a volume of 1 TiB
  0 2147483648 thin /dev/mapper/pool 0
`
