package test

import (
	"testing"

	"udm/containers/internal/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }
