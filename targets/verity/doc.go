package verity

const doc = `verity: a read-only disk whose every block is checked against a tree of hashes

Table:
  verity VERSION DATA HASH DATA_SIZE HASH_SIZE BLOCKS START ALGORITHM ROOT SALT
         [COUNT FEATURE...]
    VERSION     1, or 0 for the disks of old Chromium OS
    DATA        the device with the data
    HASH        the device with the tree, may be DATA
    DATA_SIZE   bytes of a data block, 512 to 4096
    HASH_SIZE   bytes of a hash block
    BLOCKS      how many data blocks there are
    START       where the tree lies on HASH, in hash blocks
    ALGORITHM   sha256, sha1, sha224, sha384, sha512, sha3-256, blake2b-256,
                rmd160, md5 and other sizes of these
    ROOT        the root hash, in hexadecimal digits
    SALT        the salt, in hexadecimal digits, - for none
    COUNT       how many words follow, 0 to 14
  Features:
    ignore_corruption        what is corrupted is returned as it is, and told
    restart_on_corruption, panic_on_corruption
                             the read fails, and it is told; no machine restarts
    ignore_zero_blocks       blocks that have to be zero are not read
    check_at_most_once       a data block is checked when it is first read only
    use_fec_from_device DEVICE fec_blocks N fec_start BLOCK fec_roots 2..24
                             parity, from which corrupted blocks are corrected
    try_verify_in_tasklet    is accepted and changes nothing

  The table has to be read-only. udm verity makes and opens such disks.

Status (dmsetup status):
  V   all that was read was as it should be
  C   something was corrupted and could not be corrected; each finding is an
      event and a line in the log, up to 100 of them

Messages: none

Example:
  0 2097152 verity 1 /srv/root.img /srv/root.tree 4096 4096 262144 1 sha256 ROOT SALT
`
