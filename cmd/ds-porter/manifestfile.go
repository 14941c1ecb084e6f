package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/pkg/client"
)

const (
	maxManifestFile = 1 << 20
	maxEntries      = 1000
)

// manifestFile is ds.manifest.yaml: what is pushed for which platform.
type manifestFile struct {
	ArtifactType string            `json:"artifact-type,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	Manifests    []manifestEntry   `json:"manifests"`
}

// manifestEntry is one file. Path is slashed and local; without Platform it is for every one.
type manifestEntry struct {
	Platform  string `json:"platform,omitempty"`
	Path      string `json:"path"`
	MediaType string `json:"mediaType,omitempty"`

	platform *client.Platform
	line     int // 0 in JSON
}

func readManifestFile(file, name string) (*manifestFile, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, hostError(name, err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxManifestFile+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, hostError(name, err)
	}
	return parseManifestFile(name, text)
}

// parseManifestFile reads JSON, or the block style of YAML with one key a line. Errors begin with name:line.
func parseManifestFile(name string, text []byte) (*manifestFile, error) {
	if len(text) > maxManifestFile {
		return nil, client.Usagef("%s has more than %d KiB", name, maxManifestFile>>10)
	}
	m := &manifestFile{}
	var err error
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		err = m.parseJSON(text)
	} else {
		err = m.parseYAML(string(text))
	}
	if err == nil {
		err = m.check()
	}
	if e, ok := errors.AsType[*lineError](err); ok && e.line > 0 {
		return nil, client.Usagef("%s:%d: %s", name, e.line, e.text)
	}
	if err != nil {
		return nil, client.Usagef("%s: %v", name, err)
	}
	return m, nil
}

// lineError is a finding at a line, counted from 1; 0 is unknown.
type lineError struct {
	line int
	text string
}

func (e *lineError) Error() string { return e.text }

func at(line int, format string, a ...any) error {
	return &lineError{line, fmt.Sprintf(format, a...)}
}

func (m *manifestFile) parseJSON(text []byte) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	err := dec.Decode(m)
	offset := dec.InputOffset()
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		offset = e.Offset
	}
	if err == nil {
		if _, more := dec.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("text after the object")
		}
	}
	if err != nil {
		return at(1+bytes.Count(text[:min(int(offset), len(text))], []byte("\n")), "%s", strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

func (m *manifestFile) check() error {
	if len(m.Manifests) == 0 {
		return errors.New("manifests is required and lists at least one path")
	}
	if len(m.Manifests) > maxEntries {
		return fmt.Errorf("manifests has %d entries, at most %d", len(m.Manifests), maxEntries)
	}
	for i := range m.Manifests {
		e := &m.Manifests[i]
		if e.Path == "" {
			return at(e.line, "an entry of manifests needs a path")
		}
		if e.Path = path.Clean(e.Path); e.Path == "." || !filepath.IsLocal(filepath.FromSlash(e.Path)) || strings.Contains(e.Path, `\`) {
			return at(e.line, "path %q is no file below the directory of the push, with forward slashes", e.Path)
		}
		if e.Platform == "" {
			continue
		}
		p, err := hostabi.ParsePlatform(e.Platform)
		if err != nil {
			return at(e.line, "%v", err)
		}
		e.platform = &p
	}
	return nil
}
