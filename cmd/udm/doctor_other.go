//go:build !linux

package main

// machine is one without what doctor looks for.
type machine struct{}

func thisMachine() machine { return machine{} }

func (machine) examine() []check {
	return []check{{Name: "Linux", Problem: "this is another system", Without: "udm mount and udm attach", Command: "use NBD: udm status tells the address of a device"}}
}
