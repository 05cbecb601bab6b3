package main

import (
	"errors"
	"testing"
)

// What several steps of a command say alike is said once, in one line.
func TestOneLine(t *testing.T) {
	a, b := errors.New("no daemon is running"), errors.New("the disk is full")
	if got := oneLine(errors.Join(a, b, a)); got != "no daemon is running; the disk is full" {
		t.Error(got)
	}
}
