package multipath

const doc = `multipath: several ways to the same disk

Table:
  multipath FEATURES [FEATURE...] 0 GROUPS INITIAL GROUP...
    FEATURES  how many words follow:
              queue_if_no_path            I/O waits while all paths have failed
              polling_interval SECONDS    (udm's own) test paths that an I/O has failed
                                          on, by a read, and use them again if it works
              queue_mode bio|rq|mq        of no effect
              pg_init_retries N, pg_init_delay_msecs N, retain_attached_hw_handler
                                          for hardware handlers, which udm has none of
    0         no hardware handler
    GROUPS    how many groups there are
    INITIAL   the group to begin with, from 1 on
    GROUP     SELECTOR NARGS [ARG...] PATHS NARGS [DEVICE [ARG...]]...
    SELECTOR  which path of the group an I/O takes:
              round-robin                 each has its turn
              queue-length                the one with the fewest I/Os
              service-time                the one that will be ready first, by the bytes
                                          under way and its relative throughput
              historical-service-time     the one that has been fastest, by the I/Os
                                          it would have
    ARG       of historical-service-time: WEIGHT (0 to 1023: how long the past counts)
              and THRESHOLD (times that differ by a smaller factor are alike)
    PATHS     how many paths the group has, and how many words follow each DEVICE
    DEVICE    a device that leads to the disk; what is written to one must be read from
              all, and a flush of one must make durable what was written to all
    ARG       a number that has no effect; of service-time also the relative throughput,
              0 to 100, 1 by default; 0: only if there is no other path
  It must be the only target of its table. The group in use is used until it has no
  path any more.

Status (dmsetup status):
  2 UNUSED 0 0 GROUPS CURRENT GROUP...
    UNUSED    1: no path has been used yet
    CURRENT   the group in use, or that will be used next
    GROUP     STATE NARGS [ARG...] PATHS NARGS [DEVICE HEALTH FAILURES [ARG...]]...
    STATE     A in use, E enabled, D disabled
    HEALTH    A or F: the path has failed
    FAILURES  how often it did
    ARG       queue-length: I/Os under way; service-time: bytes under way, throughput;
              historical-service-time: average time, I/Os under way, when it will be old

Messages (not while the device is suspended):
  fail_path DEVICE      do not use a path, until reinstate_path
  reinstate_path DEVICE
  switch_group N        use this group, and enable all
  disable_group N       do not use this group if another one has a path
  enable_group N
  queue_if_no_path, fail_if_no_path
    let I/O wait, or fail, while all paths have failed

Example: two NBD servers of one disk; the second is used while the first is away
  0 2097152 multipath 3 queue_if_no_path polling_interval 5 0 2 1
    round-robin 0 1 0 nbd+unix:///disk?socket=/run/a&path=1
    round-robin 0 1 0 nbd+unix:///disk?socket=/run/b&path=1
  (in one line)
`
