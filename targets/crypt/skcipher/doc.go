// Package skcipher encrypts sectors as dm-crypt does: a block cipher in a mode,
// with an initialisation vector made from each sector's number. The names are
// those of the kernel's crypto API, which calls such a thing an skcipher.
//
//	CIPHER[:KEYS]-MODE-IV[:HASH]       aes-xts-plain64, aes-cbc-essiv:sha256
//	capi:MODE(CIPHER)-IV[:HASH]        capi:xts(aes)-plain64
//
//	capi:gcm(aes)-IV                   authenticated encryption: sectors have tags
//	capi:rfc7539(chacha20,poly1305)-IV
//	capi:authenc(MAC,MODE(CIPHER))-IV  encrypted, then authenticated; MAC is hmac(HASH)
//
// [Parse] understands such a specification, [Spec.New] gives it a key.
//
// # Initialisation vectors
//
// They have the length of a cipher's block, 16 bytes, with gcm and rfc7539 12 bytes, with
// adiantum 32; what is not named is zero.
// S is the number of the sector, in units of 512 bytes or of larger sectors.
//
//	plain     S, 32 bits, little-endian
//	plain64   S, 64 bits, little-endian
//	plain64be S, 64 bits, big-endian, in the last 8 bytes
//	essiv     plain64, encrypted by the cipher under the hash of the key
//	benbi     S·32+1, 64 bits, big-endian, in the last 8 bytes: blocks of the
//	          cipher, counted from 1
//	null      zero
//	random    stored beside the sector
//	eboiv     S times the size of a sector in bytes as plain64, by which a
//	          block of zeroes is encrypted under the key
//
// # Tags
//
// What is stored beside a sector is its tag, then its vector if that is random. The tag
// authenticates the number of the sector from the start of the target, in units of 512
// bytes, as 64 bits, little-endian; then the vector; then the sector. The key of a MAC
// follows the key of the cipher and is as long as the hash.
//
// # Speed
//
// A cipher of crypto/aes encrypts one block at a time. XTS computes the tweaks of
// a whole sector first, adds them to all of it at once, and runs the cipher over
// the blocks in between, so that nothing depends on the block before. XTS of AES is in
// assembly on amd64 where the processor has instructions for AES: xts_amd64.s takes eight
// blocks at a time, wide_amd64.s sixteen in registers of 512 bits (VAES).
package skcipher
