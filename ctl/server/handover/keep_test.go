//go:build unix

package handover

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// startKeeper runs a keeper for a new root.
func startKeeper(t *testing.T) (root string) {
	t.Helper()
	root, err := os.MkdirTemp("", "keep") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- ServeKeeper(ctx, root, slog.New(slog.DiscardHandler), func() { close(ready) })
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		os.RemoveAll(root)
	})
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	return root
}

// bundle has a part with a file that has the text.
func bundle(t *testing.T, text string) *Bundle {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err == nil {
		_, err = f.WriteString(text)
	}
	b := new(Bundle)
	if err == nil {
		err = b.Put("part", text, f)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// has checks that a bundle is the one with the text.
func has(t *testing.T, b *Bundle, text string) {
	t.Helper()
	if b == nil {
		t.Fatalf("nothing was kept, want %s", text)
	}
	var value string
	files, ok, err := b.Take("part", &value)
	if !ok || err != nil || value != text || len(files) != 1 {
		t.Fatalf("%q, %v, %v, %v", value, files, ok, err)
	}
	defer files[0].Close()
	p := make([]byte, len(text))
	if _, err := files[0].ReadAt(p, 0); err != nil || string(p) != text {
		t.Errorf("the file has %q, %v", p, err)
	}
}

// What was kept last is there, open, for one who takes it.
func TestKeep(t *testing.T) {
	root := startKeeper(t)
	if !Kept(root) {
		t.Error("there is no keeper")
	}
	if b, err := TakeKept(root); b != nil || err != nil {
		t.Errorf("%v, %v", b, err)
	}
	for _, text := range []string{"first", "second"} {
		b := bundle(t, text)
		if err := Keep(root, b); err != nil {
			t.Fatal(err)
		}
		b.Close()
	}
	b, err := TakeKept(root)
	if err != nil {
		t.Fatal(err)
	}
	has(t, b, "second")
	if b, err := TakeKept(root); b != nil || err != nil {
		t.Errorf("taken again: %v, %v", b, err)
	}
}

// Who dies before it has confirmed leaves all with the keeper.
func TestNotConfirmed(t *testing.T) {
	root := startKeeper(t)
	if err := Keep(root, bundle(t, "kept")); err != nil {
		t.Fatal(err)
	}
	c, err := order{protocol, true}.to(root)
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.receiveBundle()
	if err != nil || !slices.Equal(b.Names(), []string{"part"}) {
		t.Fatalf("%v, %v", b, err)
	}
	b.Close()
	c.conn.Close()
	b, err = TakeKept(root)
	if err != nil {
		t.Fatal(err)
	}
	has(t, b, "kept")
}

// A daemon of another protocol is told so, and a second keeper that there is one.
func TestKeeperRefuses(t *testing.T) {
	root := startKeeper(t)
	c, err := order{protocol + 1, false}.to(root)
	if err != nil {
		t.Fatal(err)
	}
	defer c.conn.Close()
	if err := c.confirmed(); err == nil {
		t.Error("another protocol was not refused")
	}
	if err := ServeKeeper(t.Context(), root, slog.New(slog.DiscardHandler), func() {}); err == nil {
		t.Error("there are two keepers")
	}
}

// Without a keeper nothing is kept, which is no error for who takes.
func TestNoKeeper(t *testing.T) {
	root := t.TempDir()
	if Kept(root) {
		t.Error("there is a keeper")
	}
	if b, err := TakeKept(root); b != nil || err != nil {
		t.Errorf("%v, %v", b, err)
	}
	if err := Keep(root, bundle(t, "lost")); err == nil {
		t.Error("it was kept")
	}
}
