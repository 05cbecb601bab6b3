#!/bin/sh
# Makes the content of kernel.img.gz with the kernel's own device mapper:
#
#	kernel.sh METADATA DATA
#
# METADATA is a zeroed block device of 1 MiB, DATA one of 32 MiB. Needs root.
# kernel.xml is what thin_dump 0.9.0 says of the result, kernel.status what
# dmsetup status said at the end. Made on Linux 6.1.
set -e
write() { dd if=/dev/zero of=/dev/mapper/t$1 bs=64k seek=$2 count=$3 oflag=direct conv=notrunc; }
volume() { dmsetup create t$1 --table "0 131072 thin /dev/mapper/pool $1"; }
pool() { dmsetup message pool 0 "$@"; }

dmsetup create pool --table "0 65536 thin-pool $1 $2 128 0 2 skip_block_zeroing no_discard_passdown"
pool create_thin 1
volume 1
write 1 0 100
for id in 2 3 4 5; do
	dmsetup suspend t1
	pool create_snap $id 1
	dmsetup resume t1
	write 1 $((id * 10)) 5
done
pool create_snap 16777215 3
volume 3
i=0
while [ $i -lt 300 ]; do
	write 3 $((i * 3)) 1
	i=$((i + 1))
done
pool reserve_metadata_snap
blkdiscard -o $((60 * 65536)) -l $((300 * 65536)) /dev/mapper/t3
pool create_thin 7
pool delete 4
pool set_transaction_id 0 99
dmsetup status pool
dmsetup remove t1
dmsetup remove t3
dmsetup remove pool
