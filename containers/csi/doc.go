// Package csi is a CSI driver whose volumes are thin volumes of the udm daemon on its node.
//
// One driver runs on each node and is controller and node service for the volumes there:
// the sidecars run with --node-deployment. A volume is a volume of the node's pool, a
// snapshot is one too. What the driver knows of them is a label of the volume; nothing is
// kept elsewhere, so a driver or daemon that is killed at any moment has nothing to
// repair. Every call looks what is there and does what is missing:
//
//	CreateVolume      clone or new volume with its label, then its size
//	CreateSnapshot    the file system is frozen where it is mounted: the label says so
//	                  before it is, and the next driver thaws it
//	a group of them   all are frozen, then taken; one that is cut off is begun anew
//	restore from      another node's snapshot: received as NAME-from, cloned, removed
//	NodeStageVolume   attached, formatted when it is empty, mounted, grown
//	NodePublishVolume bound; what was staged before a daemon died is staged again
//
// Ids are DEVICE@NODE. DEVICE is made of the name that the call gives, so that a repeated
// call finds what the first one made. Calls about one volume exclude each other; the
// second one is told to try again.
package csi
