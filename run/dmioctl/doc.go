// Package dmioctl is the binary form of the device-mapper ioctls, struct dm_ioctl and
// what follows it, in both directions and on every system: for who answers programs
// such as dmsetup, and for who asks a kernel.
//
//	offset  0  version [3]u32, data_size, data_start, target_count u32, open_count i32,
//	           flags, event_nr, padding u32, dev u64
//	       48  name [128], uuid [129], ended by NUL
//	      305  the end of an answer without data
//	      312  data: targets, a text, a message, devices, dependencies or versions;
//	           which of them is what [Command] and direction say
//
// All numbers are little-endian, as on every processor that udm runs on. A list in the
// data is chained: each element holds the distance to the next one, counted from
// itself, or, for targets in an answer, from the first one.
//
// One table holds the commands. Nothing here does I/O.
package dmioctl
