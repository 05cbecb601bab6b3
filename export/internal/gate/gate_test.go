package gate

import (
	"runtime"
	"sync"
	"testing"
)

// A client that has closed the gate is alone.
func TestAlone(t *testing.T) {
	const clients, rounds = 4, 2000
	var inside, entered int32
	var mu sync.Mutex
	var all sync.WaitGroup
	for range clients {
		c := new(Client)
		c.Join("device")
		all.Go(func() {
			defer c.Leave()
			for range rounds {
				c.Close()
				mu.Lock()
				if inside++; inside != 1 || entered != 0 {
					t.Errorf("%d clients are alone, beside %d", inside, entered)
				}
				mu.Unlock()
				runtime.Gosched()
				mu.Lock()
				inside--
				mu.Unlock()
				c.Open()

				c.Enter()
				mu.Lock()
				if entered++; inside != 0 {
					t.Error("a client entered a closed gate")
				}
				mu.Unlock()
				runtime.Gosched()
				mu.Lock()
				entered--
				mu.Unlock()
				c.Exit()
			}
		})
	}
	all.Wait()
	if len(gates.of) != 0 {
		t.Errorf("%d gates are left", len(gates.of))
	}
}

// Clients of other devices do not wait.
func TestDevicesAreApart(t *testing.T) {
	var a, b Client
	a.Join(1)
	b.Join(2)
	a.Close()
	if !b.TryEnter() {
		t.Error("a client waits for another device")
	}
	b.Exit()
	a.Open()
	a.Leave()
	b.Leave()
}

// A client that finds the gate closed enters once it is open.
func TestEnterWaits(t *testing.T) {
	var a, b Client
	a.Join(1)
	b.Join(1)
	a.Close()
	if b.TryEnter() {
		t.Error("a closed gate lets a client in")
	}
	entered := make(chan bool)
	go func() {
		b.Enter()
		close(entered)
	}()
	a.Open()
	<-entered
	b.Exit()
	a.Leave()
	b.Leave()
}
