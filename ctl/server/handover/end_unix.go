//go:build unix && !linux

package handover

import (
	"fmt"
	"os"
	"time"
)

// process is the parent of this process, which has started it.
type process struct{ pid int }

func peer(int) (process, error) { return process{os.Getppid()}, nil }

// ended waits until this process has another parent. No event tells that.
func (p process) ended(limit time.Duration) error {
	for end := time.Now().Add(limit); os.Getppid() == p.pid; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("the old process has not ended for %v", limit)
		}
	}
	return nil
}

func (process) close() {}
