package main_test

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"

	program "github.com/delivery-station/ds/cmd/ds-cache"
	"github.com/delivery-station/ds/pkg/client"
	"github.com/delivery-station/ds/plugin"
)

// TestManifestDescribesProgram: ds prints help and completes from plugin.yaml alone, so it must say what the
// program says.
func TestManifestDescribesProgram(t *testing.T) {
	m := manifest(t)
	var out bytes.Buffer
	if exit := program.App().Run(t.Context(), client.Stdio{Out: &out, Err: io.Discard}, nil, "--ds-describe"); exit != 0 {
		t.Fatalf("--ds-describe: exit %d", exit)
	}
	var described struct {
		Name, Version, Summary string
		Commands               json.RawMessage
	}
	if err := json.Unmarshal(out.Bytes(), &described); err != nil {
		t.Fatal(err)
	}
	if described.Name != string(m.Name) || described.Version != m.Version || described.Summary != m.Description {
		t.Errorf("the program is %s %s %q, plugin.yaml says %s %s %q", described.Name, described.Version, described.Summary, m.Name, m.Version, m.Description)
	}
	// The same decoder reads both, so defaults are equal.
	text, err := json.Marshal(map[string]any{
		"apiVersion": plugin.APIVersion, "name": m.Name, "version": m.Version, "abi": m.ABI, "commands": described.Commands,
		"run": map[string]any{"wasm": map[string]any{"artifact": "x.wasm"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	program, _, err := plugin.ParseManifest("describe", text)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := json.MarshalIndent(program.Commands, "", " ")
	got, _ := json.MarshalIndent(m.Commands, "", " ")
	if !bytes.Equal(got, want) {
		t.Errorf("commands of plugin.yaml are not those of the program:\n%s\nprogram:\n%s", got, want)
	}
}

// here is the directory of this package; tests work elsewhere.
var here, _ = os.Getwd()

func manifest(t *testing.T) *plugin.Manifest {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(here, "plugin.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	m, warnings, err := plugin.ParseManifest("plugin.yaml", text)
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	return m
}
