package ctl

import (
	"context"
	"encoding/json"
	"net/http"
)

// ProblemsPath is where the daemon tells what is wrong. That is no command of [Service]: what
// tells it looks at a service from outside (package ctl/server/metrics).
const ProblemsPath = "/v1/problems"

// Problem is an alert that holds now, in the words of the rules for Prometheus: the page, the
// log and udm status tell it in the same words.
type Problem struct {
	Alert       string            `json:"alert"`
	Severity    string            `json:"severity"` // critical or warning
	Labels      map[string]string `json:"labels"`
	Summary     string            `json:"summary"`
	Description string            `json:"description"`
	Command     string            `json:"command"`          // fixes the cause; words in capitals are to be replaced
	Detail      string            `json:"detail,omitempty"` // what is known about the cause
}

// Problems returns what is wrong, the critical first.
func (c *Client) Problems(ctx context.Context) (list []Problem, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://udm"+ProblemsPath, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.send(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return list, json.NewDecoder(resp.Body).Decode(&list)
}
