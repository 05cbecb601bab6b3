// Package ceph tests udm together with a real Ceph cluster: what udm sends is imported
// by rbd, and the reverse. Its tests have the build tag ceph, and need a cluster, which
// CEPH_CONF names, with a pool rbd in which images may be made and removed.
//
//	CEPH_CONF=/etc/ceph/ceph.conf make test-ceph
package ceph
