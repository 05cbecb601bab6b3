package mirror

const doc = `mirror: the same data on several devices (RAID 1)

Table:
  mirror LOG LEGS DEVICE OFFSET [DEVICE OFFSET]... [FEATURES FEATURE...]
    LOG       core 1 REGION            what is in sync is known while the table is
                                       in use; at the beginning nothing is
              disk 2 LOGDEVICE REGION  it is kept on LOGDEVICE
              Behind REGION there may be one more word, counted in the number (2 or 3):
                sync                   nothing is in sync at the beginning
                nosync                 everything is
    REGION    sectors in a region, a power of two, at least 2
    LEGS      how many devices there are, 2 to 9
    DEVICE    a device below, LEGS of them; regions that are not in sync are copied
              from the first one
    OFFSET    the sector of DEVICE where the data begin
    FEATURES  how many words follow:
              handle_errors  writes that fail on a leg, or because of the log, are
                             held until the device is suspended: they fail then, or
                             are repeated after a suspend with --noflush. Failures
                             raise events
              keep_log       with handle_errors: writes that fail on a leg succeed,
                             and are not held

Status (dmsetup status):
  LEGS DEVICE... SYNC/REGIONS 1 HEALTH LOG
    SYNC/REGIONS  regions in sync, and all of them
    HEALTH        one letter for each device: A alive; or what failed on it: F a
                  flush, D a write, S recovery, R a read
    LOG           1 core
                  3 disk LOGDEVICE STATE  A alive, D it failed, F a flush of it failed

Messages:
  none

Logs in other programs (userspace, clustered) are not supported.

Example: two disks of 1 GiB, with a log that says after a crash what may differ
  0 2097152 mirror disk 2 /srv/log.img 1024 2 /srv/a.img 0 /srv/b.img 0 1 handle_errors
`
