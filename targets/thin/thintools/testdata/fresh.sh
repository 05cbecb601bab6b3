#!/bin/sh
# Makes the content of fresh.img.gz with the kernel's own device mapper:
#
#	fresh.sh METADATA DATA
#
# METADATA is a zeroed block device of 8 MiB, DATA one of 32 MiB. Needs root.
# Made on Linux 6.1.
set -e
dmsetup create pool --table "0 65536 thin-pool $1 $2 128 0"
dmsetup message pool 0 create_thin 1
dmsetup message pool 0 create_snap 2 1
dmsetup remove pool
