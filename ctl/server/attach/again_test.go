package attach

import (
	"slices"
	"testing"
	"time"
)

// A block device that the driver gives up late does not hold up those behind it.
func TestEachWhen(t *testing.T) {
	var done []uint32
	free := func(minor uint32) bool { return minor != 0 || len(done) == 3 }
	eachWhen([]uint32{0, 1, 2, 3}, free, time.Hour, func(minor uint32) { done = append(done, minor) })
	if want := []uint32{1, 2, 3, 0}; !slices.Equal(done, want) {
		t.Errorf("attached in the order %d, want %d", done, want)
	}
	done = nil
	eachWhen([]uint32{0, 1}, func(uint32) bool { return false }, -1, func(minor uint32) { done = append(done, minor) })
	if want := []uint32{0, 1}; !slices.Equal(done, want) {
		t.Errorf("after patience: %d, want %d", done, want)
	}
}
