package crypt

const doc = `crypt: what is written is encrypted, what is read decrypted

Table:
  crypt CIPHER KEY IV_OFFSET DEVICE OFFSET [COUNT FEATURE...]
    CIPHER      CIPHER[:KEYS]-MODE-IV[:HASH] or capi:MODE(CIPHER)-IV[:HASH],
                such as aes-xts-plain64 and aes-cbc-essiv:sha256; or of
                authenticated encryption capi:gcm(aes)-IV,
                capi:rfc7539(chacha20,poly1305)-IV and
                capi:authenc(hmac(HASH),MODE(CIPHER))-IV
                  KEYS     how many keys take turns from sector to sector, a power
                           of two up to 64
                  CIPHER   aes, twofish, or cipher_null, which does nothing;
                           xchacha12,aes or xchacha20,aes for adiantum
                  MODE     xts, cbc, adiantum, or ecb, which has no IV
                  IV       plain64, plain64be, plain, essiv:sha256, benbi, null,
                           eboiv, or random, which is stored with each sector
    KEY         hexadecimal digits, - for none, or :SIZE:TYPE:DESCRIPTION of a
                key in a store that the program has
    IV_OFFSET   added to the number of a sector for its IV
    DEVICE      the device below; for authenticated encryption and random an
                integrity device without internal_hash
    OFFSET      the sector of DEVICE where the target's first sector lies
    COUNT       how many words follow, 0 to 8
  Features:
    allow_discards           discards are passed on; whoever sees the disk then
                             sees what is not in use
    no_read_workqueue        whoever has read decrypts, as with aes up to 8 KiB, and
                             aes-xts up to 64 KiB on processors with VAES, in any case
    no_write_workqueue       whoever submits a write encrypts, as with aes up to
                             8 KiB, and aes-xts up to 64 KiB, in any case
    sector_size:BYTES        512 to 4096, encrypted as one
    integrity:BYTES:PROFILE  what DEVICE stores with each sector: a tag if PROFILE
                             is aead, then the IV if it is random; with the
                             PROFILE none only the IV
    iv_large_sectors         the IV counts such sectors, else 512 bytes
    same_cpu_crypt, submit_from_crypt_cpus, high_priority
                             are accepted and change nothing

Status (dmsetup status):
  nothing

Messages, while the device is suspended:
  key set KEY   another key of the same size
  key wipe      forget the key; without one the device cannot be resumed

The table shows the key, and whoever can read it can read the disk.

Example: aes-xts with a key of 256 bits
  0 2097152 crypt aes-xts-plain64 KEY 0 /srv/a.img 0 1 sector_size:4096
`
