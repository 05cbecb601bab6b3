//go:build helm

package test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"udm/containers/internal/rig"
	"udm/test/need"
)

// helm is built from its module, once, into the user's cache.
const helm = "helm.sh/helm/v3/cmd/helm@v3.19.0"

func tool(t *testing.T, path string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+t.TempDir(), "HELM_CONFIG_HOME="+t.TempDir())
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s%s", filepath.Base(path), args, err, out, &errs)
	}
	return out
}

// The chart has no fault that helm lint knows, with peers or without. With its default values
// it is what Kustomize makes, as kubectl reads both.
func TestHelm(t *testing.T) {
	need.Tools(t, "kubectl")
	dir := filepath.Join(rig.Root(t), "..", "packaging", "kubernetes")
	chart := filepath.Join(dir, "helm", "udm")
	h := rig.Tool(t, helm)
	for _, set := range []string{"", "peers=a=a:9810", "snapshotter.enabled=false"} {
		t.Logf("%s: %s", set, tool(t, h, "lint", "--strict", "--set", set, chart))
		objects(t, tool(t, h, "template", "udm", chart, "--namespace", "udm", "--set", set))
	}
	ours := objects(t, tool(t, h, "template", "udm", chart, "--namespace", "udm"))
	theirs := slices.DeleteFunc(objects(t, tool(t, "kubectl", "kustomize", filepath.Join(dir, "kustomize"))), func(o string) bool { return strings.HasPrefix(o, "Namespace ") })
	if !slices.Equal(ours, theirs) {
		t.Errorf("the chart makes\n%s\nand Kustomize\n%s", strings.Join(ours, "\n"), strings.Join(theirs, "\n"))
	}
}
