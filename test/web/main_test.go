//go:build chromium

package web

import (
	"fmt"
	"os"
	"sync"
	"testing"
)

// shared starts the browser when the first test needs it.
var shared = sync.OnceValues(func() (*browser, error) {
	started = true
	return startBrowser()
})

var started bool // written and read by tests, which run one after the other

func TestMain(m *testing.M) {
	code := m.Run()
	if started {
		if b, err := shared(); err == nil {
			if err := b.end(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				code = 1
			}
		}
	}
	os.Exit(code)
}
