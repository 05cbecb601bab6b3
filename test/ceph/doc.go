// Package ceph tests udm on a real Ceph cluster: disks rbd:POOL/IMAGE, the streams that rbd
// imports and exports, and archives in a bucket of radosgw. Its tests have the build tag ceph,
// and start a cluster of one monitor and one OSD, which stores in memory, and radosgw as
// processes of this user on 127.0.0.1; they end with the tests. packages.txt lists the Debian
// packages.
//
//	make test-ceph
package ceph
