package verity

const doc = `verity: a read-only disk whose blocks are verified against a hash tree

Table:
  verity VERSION DATA HASH DATA_SIZE HASH_SIZE BLOCKS START ALGORITHM ROOT SALT
         [COUNT FEATURE...]
    VERSION     1, or 0 for the disks of old Chromium OS
    DATA        the data device
    HASH        the device that holds the tree; may be DATA
    DATA_SIZE   the size of a data block in bytes, 512 to 4096
    HASH_SIZE   the size of a hash block in bytes
    BLOCKS      the number of data blocks
    START       the offset of the tree on HASH, in hash blocks
    ALGORITHM   sha256, sha1, sha224, sha384, sha512, sha3-256, blake2b-256,
                rmd160, md5, or another size of these
    ROOT        the root hash in hexadecimal
    SALT        the salt in hexadecimal, or - for none
    COUNT       the number of words that follow, 0 to 14
  Features:
    ignore_corruption        log corrupted blocks and return them as they are
    restart_on_corruption, panic_on_corruption
                             log corrupted blocks and fail the read; udm never
                             restarts the machine
    ignore_zero_blocks       return zeroes for blocks with the hash of zeroes,
                             whatever the disk contains
    check_at_most_once       verify a data block only when it is first read
    use_fec_from_device DEVICE fec_blocks N fec_start BLOCK fec_roots 2..24
                             correct corrupted blocks with the parity on DEVICE
    try_verify_in_tasklet    accepted, without effect

  The table must be read-only. udm verity makes and opens such disks.

Status (dmsetup status):
  V   no corruption was found
  C   a block was corrupted and could not be corrected; each one raises an
      event and is logged, up to 100 of them

Messages: none

Example:
  0 2097152 verity 1 /srv/root.img /srv/root.tree 4096 4096 262144 1 sha256 ROOT SALT
`
