//go:build !unix

package main

// terminalWidth is not known here.
func terminalWidth() int { return 0 }
