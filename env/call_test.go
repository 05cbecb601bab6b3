package env_test

import (
	"testing"

	"udm/env"
)

// Call returns when the function has run, behind what was queued before.
func TestCall(t *testing.T) {
	for name, e := range map[string]env.Env{"real": env.Real(), "simulated": env.NewStepped()} {
		t.Run(name, func(t *testing.T) {
			q, order := e.NewQueue("q"), ""
			q.Queue(env.NewWork(func() { order += "a" }))
			env.Call(q, e.NewWait(), func() { order += "b" })
			if order != "ab" {
				t.Errorf("%q", order)
			}
			q.Close()
		})
	}
}
