// Package oci writes container images without a container engine: an OCI image layout in
// one tar archive, as ctr images import, skopeo, podman load and registries' tools read it.
// The same content gives the same bytes.
package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"path"
	"slices"
	"strings"
)

// Image is what is in an image.
type Image struct {
	Name       string   // reference, such as localhost/udm:1
	Arch       string   // amd64, arm64
	Layers     [][]byte // tar archives, the lowest first
	Entrypoint []string
	Labels     map[string]string
}

// Media types.
const (
	indexType    = "application/vnd.oci.image.index.v1+json"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// descriptor refers to a blob.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Platform    *platform         `json:"platform,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        *descriptor  `json:"config,omitempty"`
	Layers        []descriptor `json:"layers,omitempty"`
	Manifests     []descriptor `json:"manifests,omitempty"`
}

type config struct {
	platform
	Config struct {
		Entrypoint []string          `json:",omitempty"`
		Labels     map[string]string `json:",omitempty"`
	} `json:"config"`
	RootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

// layout is an image that is being written.
type layout struct {
	tar  *tar.Writer
	seen []string
}

// Write writes an image.
func Write(w io.Writer, i Image) error {
	l := &layout{tar: tar.NewWriter(w)}
	where := platform{i.Arch, "linux"}
	c := config{platform: where}
	c.Config.Entrypoint, c.Config.Labels, c.RootFS.Type = i.Entrypoint, i.Labels, "layers"
	m := manifest{SchemaVersion: 2, MediaType: manifestType}
	for _, layer := range i.Layers {
		d, err := l.layer(layer)
		if err != nil {
			return err
		}
		m.Layers, c.RootFS.DiffIDs = append(m.Layers, d), append(c.RootFS.DiffIDs, digest(layer))
	}
	d, err := l.json(configType, c)
	if err != nil {
		return err
	}
	m.Config = &d
	if d, err = l.json(manifestType, m); err != nil {
		return err
	}
	d.Platform, d.Annotations = &where, map[string]string{
		"io.containerd.image.name": i.Name, "org.opencontainers.image.ref.name": i.Name[strings.LastIndex(i.Name, ":")+1:]}
	index, err := json.Marshal(manifest{SchemaVersion: 2, MediaType: indexType, Manifests: []descriptor{d}})
	if err == nil {
		err = l.file("index.json", index)
	}
	if err == nil {
		err = l.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	}
	if err != nil {
		return err
	}
	return l.tar.Close()
}

func (l *layout) layer(text []byte) (descriptor, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(text); err != nil {
		return descriptor{}, err
	}
	if err := z.Close(); err != nil {
		return descriptor{}, err
	}
	return l.blob(layerType, b.Bytes())
}

func (l *layout) json(mediaType string, v any) (descriptor, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return descriptor{}, err
	}
	return l.blob(mediaType, text)
}

func (l *layout) blob(mediaType string, text []byte) (descriptor, error) {
	d := descriptor{MediaType: mediaType, Digest: digest(text), Size: len(text)}
	return d, l.file("blobs/"+strings.Replace(d.Digest, ":", "/", 1), text)
}

func (l *layout) file(name string, text []byte) error {
	if slices.Contains(l.seen, name) {
		return nil
	}
	l.seen = append(l.seen, name)
	return File(l.tar, name, 0o644, text)
}

func digest(p []byte) string {
	sum := sha256.Sum256(p)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// File writes a file to an archive, owned by root and without a date.
func File(w *tar.Writer, name string, mode int64, text []byte) error {
	err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(text))})
	if err == nil {
		_, err = w.Write(text)
	}
	return err
}

// Dir writes a directory to an archive.
func Dir(w *tar.Writer, name string, mode int64) error {
	return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: path.Clean(name) + "/", Mode: mode})
}
