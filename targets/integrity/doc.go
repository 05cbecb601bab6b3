package integrity

const doc = `integrity: stores a checksum or MAC with each block and verifies it on reads

Table:
  integrity DEVICE START TAG_SIZE MODE COUNT FEATURE...
    DEVICE      the underlying device; formatted if its superblock is all zeroes
    START       the sector of the superblock on DEVICE, or on the meta device
    TAG_SIZE    the size of a tag in bytes, or - for the size of the hash
    MODE        J  journal data and tags
                B  write data and tags directly, and record where in a
                   bitmap; after a power cut, the tags there are computed
                   again
                D  write data and tags directly; after a power cut, tags may
                   not match blocks that were being written
                R  recovery: read-only, without journal or bitmap
    COUNT       the number of words that follow, 1 to 18
  Features:
    internal_hash:ALGORITHM[:KEY]
                             crc32c, crc32, xxhash64, sha1, sha224, sha256,
                             sha384, sha512, md5, or hmac(sha256) with a KEY in
                             hexadecimal; without this feature the tags are
                             those of the target crypt above
    journal_mac:ALGORITHM:KEY
                             authenticate the positions of blocks in the journal,
                             and with fix_hmac the superblock
    journal_crypt:CIPHER:KEY
                             encrypt the journal by ctr(aes) or cbc(aes)
    block_size:BYTES         the size of a block with one tag, 512 to 4096
    meta_device:DEVICE       keep superblock, journal and tags on a separate
                             device
    allow_discards           pass on discards; discarded blocks are not verified
    recalculate, reset_recalculate
                             compute the tags of existing data in the
                             background; the second starts from the beginning
    legacy_recalculate       allow this with a KEY but without fix_hmac and
                             journal_mac
  Features that only take effect when the device is formatted:
    journal_sectors:N        the size of the journal
    interleave_sectors:N     the length of a run of data between runs of tags
    fix_padding              pad runs of tags less
    fix_hmac                 include a salt in hashes
  Others:
    buffer_sectors:N         the unit in which tags are read and written
    journal_watermark:PERCENT, commit_time:MILLISECONDS
                             when the journal is written back and committed
    sectors_per_bit:N, bitmap_flush_interval:MILLISECONDS
                             the length of the region of each bit, and how long
                             after a write the bits are cleared

Status (dmsetup status):
  MISMATCHES SECTORS RECALCULATED
    MISMATCHES    the number of reads of blocks that did not match their tags
    SECTORS       the number of sectors of data
    RECALCULATED  the sector up to which tags are recalculated, or - if the
                  device does not recalculate

Messages: none

Example: 1 GiB of data
  0 2097152 integrity /srv/a.img 0 - J 1 internal_hash:crc32c
`
