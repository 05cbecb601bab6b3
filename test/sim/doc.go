// Package sim runs whole stacks of mapped devices in one seeded simulator and
// judges them: disks with a volatile write cache, latency and reordering, users
// that read and write at random, control operations beside them, and power cuts
// at any moment, after which everything is opened again.
//
// # A history
//
// One seed makes one history. A [world] has disks, which outlive power cuts, and
// a scenario, which knows how to build the stack and what can be done to it.
// It lives through a few rounds; each is a number of operations, then a power
// cut in the middle of everything or an orderly stop, then a start from what is
// on the disks. Operation i of a history is drawn from (seed, i) alone, so that
// leaving others out does not change it: that is how a failing history is
// reduced.
//
// # The judge
//
// Each volume has a [blktest.Model]: what every sector may hold. Every read is
// compared with it, every volume is read whole after each start and at the end,
// scenarios check their on-disk state, nothing may pass a barrier, and whatever
// hangs, or runs in circles, ends the history: the simulator says what waits.
//
// In some kinds of histories errors are injected into the disks, or metadata is
// damaged: then I/O and control operations may fail, but what is read is right.
//
// docs/reliability.md tells what was run, and what it has found.
package sim
