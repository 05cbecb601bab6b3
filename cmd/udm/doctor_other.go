//go:build !linux

package main

// machine is a system that doctor does not know.
type machine struct{}

func thisMachine() machine { return machine{} }

func (machine) examine() []check {
	return []check{{Name: "Linux", Problem: "this is not Linux", Without: "udm mount and udm attach", Command: "use NBD: udm status prints the address of a device"}}
}
