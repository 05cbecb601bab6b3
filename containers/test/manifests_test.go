package test

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/template"

	"go.yaml.in/yaml/v3"

	"udm/containers/internal/rig"
)

var update = flag.Bool("update", false, "write the files for Kustomize")

// The chart with its default values is what Kustomize applies, its text is YAML, and the
// programs have the flags that it gives them.
func TestManifests(t *testing.T) {
	dir := filepath.Join(rig.Root(t), "..", "packaging", "kubernetes")
	chart := filepath.Join(dir, "helm", "udm")
	files, err := filepath.Glob(filepath.Join(chart, "templates", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%v: no templates", err)
	}
	for _, f := range files {
		text := render(t, f, values(t, chart, nil))
		other := filepath.Join(dir, "kustomize", filepath.Base(f))
		if *update {
			if err := os.WriteFile(other, text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if is, err := os.ReadFile(other); err != nil || !bytes.Equal(is, text) {
			t.Errorf("%s differs from the chart with its default values: go test ./test -update writes it (%v)", other, err)
		}
		parse(t, f, text)
		peers := render(t, f, values(t, chart, map[string]any{"peers": "a=a:9810"}))
		parse(t, f, peers)
		checkFlags(t, peers)
	}
	var k struct{ Resources []string }
	text, err := os.ReadFile(filepath.Join(dir, "kustomize", "kustomization.yaml"))
	if err == nil {
		err = yaml.Unmarshal(text, &k)
	}
	if err != nil || len(k.Resources) != len(files)+1 { // and the namespace
		t.Errorf("kustomization.yaml names %v, %v", k.Resources, err)
	}
	for _, name := range k.Resources {
		if _, err := os.Stat(filepath.Join(dir, "kustomize", name)); err != nil {
			t.Error(err)
		}
	}
}

// values are what templates see, as Helm gives it to them.
func values(t *testing.T, chart string, other map[string]any) map[string]any {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(chart, "values.yaml"))
	v := map[string]any{}
	if err == nil {
		err = yaml.Unmarshal(text, &v)
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range other {
		v[name] = value
	}
	return map[string]any{"Values": v, "Release": map[string]any{"Namespace": "udm"}}
}

func render(t *testing.T, file string, v map[string]any) []byte {
	t.Helper()
	tmpl, err := template.New(filepath.Base(file)).Option("missingkey=error").ParseFiles(file)
	var b bytes.Buffer
	if err == nil {
		err = tmpl.Execute(&b, v)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func parse(t *testing.T, name string, text []byte) {
	t.Helper()
	for _, o := range objects(t, text) {
		if !strings.Contains(o, "apiVersion:") {
			t.Errorf("%s: %s has no version", name, o)
		}
	}
}

// objects are the objects of a text, in order, each as its kind, name and content.
func objects(t *testing.T, text []byte) (list []string) {
	t.Helper()
	for d := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var o map[string]any
		err := d.Decode(&o)
		if err == io.EOF {
			slices.Sort(list)
			return list
		}
		meta, _ := o["metadata"].(map[string]any)
		if err != nil || o["kind"] == nil || meta["name"] == nil {
			t.Fatalf("%v, %v\n%s", o, err, text)
		}
		list = append(list, fmt.Sprintf("%v %v %v", o["kind"], meta["name"], o))
	}
}

// checkFlags looks for each flag of the drivers in their help.
func checkFlags(t *testing.T, text []byte) {
	t.Helper()
	for _, program := range []string{"udm-csi", "udm-snapshotter"} {
		at := bytes.Index(text, []byte("command: [/usr/bin/"+program+"]"))
		if at < 0 {
			continue
		}
		part, _, _ := strings.Cut(string(text[at:]), "\n        - name: ") // the next container
		help, _ := exec.Command(rig.Build(t, ".", "udm/containers/cmd/"+program), "-h").CombinedOutput()
		given := regexp.MustCompile(`- --([a-z-]+)=`).FindAllStringSubmatch(part, -1)
		if len(given) == 0 {
			t.Errorf("no flags of %s", program)
		}
		for _, f := range given {
			if !strings.Contains(string(help), "  -"+f[1]+" ") && !strings.Contains(string(help), "  -"+f[1]+"\n") {
				t.Errorf("%s has no flag %s:\n%s", program, f[1], help)
			}
		}
	}
}
