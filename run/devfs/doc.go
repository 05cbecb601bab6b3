// Package devfs is what programs under udm run see in place of the machine's block
// devices: a shadow of /dev, of the files about block devices in /proc and /sys, and
// of the folders in which LVM keeps its state.
//
// All of it is a tree of real files in one folder, so that listing a directory, links
// and renaming work as the file system does them:
//
//	FOLDER/dev/…    the shadow /dev; a device is a file that says which, see Node
//	FOLDER/sys/…    /sys/block, /sys/class/block, /sys/dev/block, /sys/devices/virtual/block
//	FOLDER/proc/…   /proc/devices, /proc/misc, /proc/partitions
//	FOLDER/var/…    /run/lvm, /etc/lvm/archive and the like
//
// [Tree.Resolve] maps a path of a program to a file of the tree. Names such as
// /dev/null are those of the machine; all other names of its /dev cannot be seen.
//
// Tree.mu guards the memory of nodes and of what was written; it is a leaf.
package devfs
