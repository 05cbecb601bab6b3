// Package conform runs conformance scripts: the same lines on the kernel's device mapper and on udm, answers compared line by
// line.
//
// A script is a text file. Lines that begin with # are comments, the first of them says what the script is about. Every
// other line is a command; words are separated by blanks, and quotes '…' or "…" keep blanks inside a word. $NAME stands for
// the path of a disk. Lines that begin with a tab are the standard input of the command above them.
//
//	needs TARGET…                 the script wants these targets
//	long                          the kernel takes long for it, so it is not asked each time
//	disk NAME SIZE [BLOCK]        makes an empty disk of SIZE bytes (K, M allowed) with BLOCK-byte logical blocks
//	dmsetup ARG…                  runs dmsetup
//	write DEV SECTOR COUNT SEED   writes COUNT sectors of pattern SEED (1 to 9999)
//	read DEV SECTOR COUNT         prints what the sectors hold, one line per run of like content:
//	                                FROM+COUNT zero
//	                                FROM+COUNT data SEED@SECTOR   the pattern SEED, as written to SECTOR onward
//	                                FROM+1 other HASH             anything else, by sector
//	discard DEV SECTOR COUNT      discards
//	zero DEV SECTOR COUNT         writes zeroes
//	flush DEV                     flushes
//	peek DEV OFFSET COUNT         prints COUNT bytes in hexadecimal, 16 a line
//	poke DEV OFFSET HEX           overwrites bytes
//	open DEV, close DEV           keeps a device open until closed
//	limits DEV                    prints size in sectors, logical block size, read-only and discard ability
//	& COMMAND                     starts COMMAND; the next "join" waits for it and gives its answer
//	slow MS COMMAND               adds "late" if COMMAND took at least MS milliseconds, "early" otherwise; for what must take long:
//	                                on a busy machine all may
//	eventually TEXT COMMAND       repeats COMMAND until TEXT is a line of its answer, at most 3000 times
//	differs ID                    the next command's answer on udm differs for good; docs/differences.md explains `ID`
//
// DEV is $NAME for a disk and a plain name for a device-mapper device. Sectors are 512 bytes.
//
// An answer is a list of lines: what a command printed to standard output, then "exit N" unless N is 0, then one
// "error WORDS" for each line of its standard error, where WORDS is the strerror text if the line tells of a failed ioctl.
// A data command answers "error ENAME" or nothing. Device numbers of disks read $NAME, the time columns of @stats_print read *,
// and a blank at the end of a line is made visible by a $ after it; nothing else is changed.
package conform
