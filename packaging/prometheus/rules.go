// Package prometheus has the alerts for Prometheus, for programs that tell the same
// problems in the same words.
package prometheus

import _ "embed"

// Rules is the text of udm.rules.yml.
//
//go:embed udm.rules.yml
var Rules []byte
