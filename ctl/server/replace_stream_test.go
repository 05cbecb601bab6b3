//go:build linux

package server

import (
	"bytes"
	"context"
	"os"
	"slices"
	"testing"

	"udm/volume"
)

// A stream that a daemon is receiving when it is replaced is cut off, what has come is kept, and
// the same command goes on with it: in the end all of it is there.
func TestReplacedWhileReceiving(t *testing.T) {
	r, ctx := startReplaced(t, ""), context.Background()
	const n = blocks * blockSize
	content := make([]byte, n)
	for at := range blocks {
		copy(content[at*blockSize:], filled(uint64(at+1)))
	}
	v := r.nbd("v")
	for at := range blocks {
		r.must(v.write(content[at*blockSize:][:blockSize], at))
	}
	r.must(r.Snapshot(ctx, volume.SnapshotSpec{Of: "v", Names: []string{"s"}}))
	var whole bytes.Buffer
	r.must(r.Send(ctx, volume.SendSpec{Name: "s"}, &whole))

	in, w := haltedStream(t, whole.Bytes()[:whole.Len()/2])
	cut := make(chan error, 1)
	go func() {
		_, err := r.Receive(ctx, volume.ReceiveSpec{Name: "copy", Pool: "p", Keep: true}, in)
		_ = in.Close()
		cut <- err
	}()
	<-in.reached
	r.must(r.replace(os.Args[0]))
	r.ready()
	_ = w.Close() // nobody reads any more
	if err := <-cut; err == nil {
		t.Error("half of a stream is received")
	}
	at := r.incoming("copy-incoming")
	t.Logf("%d of %d bytes are kept", at, whole.Len())
	r.must(r.replace(os.Args[0])) // what is kept goes along
	r.ready()
	_, err := r.Receive(ctx, volume.ReceiveSpec{Name: "copy", Pool: "p", Keep: true, Resume: true}, bytes.NewReader(whole.Bytes()[at:]))
	r.must(err)
	c, p := r.nbd("copy"), make([]byte, blockSize)
	for at := range blocks {
		if err := c.read(p, at); err != nil || !bytes.Equal(p, content[at*blockSize:][:blockSize]) {
			t.Fatalf("block %d: %v, or another", at, err)
		}
	}
}

// incoming returns where a stream that was cut off goes on.
func (r *replaced) incoming(name string) uint64 {
	r.t.Helper()
	objects, err := r.Objects(context.Background())
	r.must(err)
	i := slices.IndexFunc(objects, func(o volume.Object) bool { return o.Name == name && o.Incoming != nil })
	if i < 0 {
		r.t.Fatalf("nothing is kept: %+v", objects)
	}
	return *objects[i].Incoming
}
