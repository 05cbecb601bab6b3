// Package blktest is what tests of block devices lean on.
//
//   - [TestDevice] is the conformance suite that every device passes.
//   - [Gate] holds each request until the test releases or fails it.
//   - [Fill] and [Check] are data in which every word knows its own address.
//   - [Model] knows what each sector may hold, now and after a power cut.
//   - [FailEach] runs a scenario with the 1st, 2nd, 3rd … I/O failing.
//   - [Leaks] finds goroutines that outlive a test.
package blktest
