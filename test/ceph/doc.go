// Package ceph tests udm on a real Ceph cluster: disks rbd:POOL/IMAGE, and the streams that
// rbd imports and exports. Its tests have the build tag ceph, and start a cluster of one
// monitor and one OSD, which stores in memory, as processes of this user on 127.0.0.1; they
// end with the tests. Debian packages: ceph-mon, ceph-osd, ceph-common, librbd-dev.
//
//	make test-ceph
package ceph
