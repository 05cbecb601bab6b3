package csi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"udm/volume"
)

// Peer serves snapshots to the drivers of other nodes: GET /snapshots/DEVICE answers a
// stream of package volume/rbddiff. One that is cut off is recognized by who receives it.
// Serve it with TLS and ask for certificates: who has one may read all snapshots.
func (d *Driver) Peer() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /snapshots/{device}", func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("device")
		if _, _, err := d.object(r.Context(), isSnapshot, name); err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		if err := d.client.Send(r.Context(), volume.SendSpec{Name: name}, w); err != nil {
			d.Log.Warn("a snapshot was not sent", "device", name, "to", r.RemoteAddr, "reason", err)
			panic(http.ErrAbortHandler) // it must not look complete
		}
	})
	return mux
}

// FetchWith returns a Fetch over HTTPS.
func FetchWith(c *tls.Config) Fetch {
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: c}}
	return func(ctx context.Context, address, device string) (io.ReadCloser, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+"/snapshots/"+device, nil)
		if err != nil {
			return nil, err
		}
		answer, err := client.Do(r)
		if err != nil {
			return nil, err
		}
		if answer.StatusCode != http.StatusOK {
			text, err := io.ReadAll(io.LimitReader(answer.Body, 1<<10))
			return nil, errors.Join(fmt.Errorf("%s: %s", answer.Status, strings.TrimSpace(string(text))), err, answer.Body.Close())
		}
		return answer.Body, nil
	}
}
