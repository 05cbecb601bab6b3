package integrity

const doc = `integrity: each block has a tag, its hash, which is checked when it is read

Table:
  integrity DEVICE START TAG_SIZE MODE COUNT FEATURE...
    DEVICE      the device below; where it is all zeroes it is formatted
    START       the sector of DEVICE, or of the meta device, with the superblock
    TAG_SIZE    bytes of a tag, - for all of the hash
    MODE        J  data and tags are journaled
                D  they are written directly; after a power cut blocks that were
                   being written may not fit their tags
                R  reading only; the journal is not replayed
    COUNT       how many words follow, 1 to 18
  Features:
    internal_hash:ALGORITHM[:KEY]
                             crc32c, crc32, xxhash64, sha256 and other sizes of
                             sha, sha1, md5, hmac(sha256) with a KEY in
                             hexadecimal digits
    block_size:BYTES         512 to 4096, which have one tag
    meta_device:DEVICE       superblock, journal and tags are on a device of
                             their own
    allow_discards           discards are passed on; discarded blocks have a tag
                             that is never checked
    recalculate, reset_recalculate
                             tags are computed of what is there, in the
                             background; the second begins anew
    legacy_recalculate       also with a KEY and without fix_hmac
  Features that count when it is formatted:
    journal_sectors:N        size of the journal
    interleave_sectors:N     data between two runs of tags
    fix_padding              smaller runs of tags
    fix_hmac                 hashes cover a salt
  Others:
    buffer_sectors:N         tags that are read and written at once
    journal_watermark:PERCENT, commit_time:MILLISECONDS
                             when the journal is written back and committed

Status (dmsetup status):
  MISMATCHES SECTORS RECALCULATED
    MISMATCHES    how many blocks were not what their tags say
    SECTORS       of data
    RECALCULATED  up to which sector tags were computed, - if they need not be

Messages: none

Example: 1 GiB of data
  0 2097152 integrity /srv/a.img 0 - J 1 internal_hash:crc32c
`
