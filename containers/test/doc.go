// Package test runs a real containerd and ctr, built from their modules into the user's
// cache, with udm-snapshotter: make test-containerd. Its tests have the build tag
// containerd, since building that takes minutes.
package test
