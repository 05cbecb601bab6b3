package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
)

// ReplacePath is where the daemon is told to replace itself. That is no command of
// [Service], which only the daemon's process has.
const ReplacePath = "/v1/replace"

type (
	// Replace asks a daemon to start another one, which takes over its devices and their
	// clients, and to end then.
	Replace struct {
		Program string `json:"program,omitempty"` // "": the daemon's own, as it is now
	}
	// Replaced is the answer.
	Replaced struct {
		PID int `json:"pid"` // of the new daemon
	}
)

// Replace returns when the new daemon serves. After an error the old one does.
func (c *Client) Replace(ctx context.Context, r Replace) (out Replaced, err error) {
	body, err := json.Marshal(r)
	if err != nil {
		return out, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://udm"+ReplacePath, bytes.NewReader(body))
	if err != nil {
		return out, err
	}
	resp, err := c.send(req)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	return out, json.NewDecoder(resp.Body).Decode(&out)
}
