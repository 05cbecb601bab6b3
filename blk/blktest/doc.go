// Package blktest supports tests of block devices.
//
//   - [TestDevice] is the conformance suite that every device passes.
//   - [Gate] holds each request until the test releases or fails it.
//   - [Fill] and [Check] are data in which every word holds its own address.
//   - [Model] tracks what each sector may hold, now and after a power cut.
//   - [Load] is users that write and read, verified by a Model.
//   - [FailEach] runs a scenario once for each I/O, with that I/O failing.
//   - [Leaks] finds goroutines that outlive a test.
package blktest
