// Package sim tests whole stacks of mapped devices in a seeded simulator: disks
// with a volatile write cache, latency and reordering, users that read and write
// at random, concurrent control operations, and power cuts at any moment, after
// which everything is reopened.
//
// # A history
//
// One seed makes one history. A [harness] has disks, which outlive power cuts,
// and a scenario, which builds the stack and performs control operations on it. A
// history has a few rounds. Each is a number of operations, then a power cut at
// any point or an orderly stop, then a start from the content of the disks.
// Operation i of a history is drawn from (seed, i) alone, so that omitting others
// does not change it: this makes it possible to reduce a failing history.
//
// # The judge
//
// Each volume has a [blktest.Model] of the legal content of every sector. Every
// read is compared with it, and every volume is read whole after each start and
// at the end. Scenarios check their on-disk state. No bio may pass a barrier. A
// deadlock or livelock ends the history: the simulator reports what waits.
//
// Some kinds of histories inject errors into the disks or damage metadata. I/O
// and control operations may then fail, but every successful read must return
// legal content.
//
// docs/reliability.md lists what was run and what it has found.
package sim
