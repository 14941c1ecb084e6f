package plugin

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

func parseFile(t *testing.T, name string) *Manifest {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	m, warnings, err := ParseManifest("plugin.yaml", b)
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	return m
}

func TestParseManifest(t *testing.T) {
	m := parseFile(t, "testdata/s3.yaml")
	if m.Name != "s3" || m.Version != "1.4.0" || m.ABI != hostabi.ABI || m.Assets != "app" || m.ConfigSchema != "settings.schema.json" || m.Generated || m.Legacy() {
		t.Errorf("identity: %+v", m)
	}
	if want := (Limits{Memory: 256 << 20, Time: 10 * time.Minute, Tmp: 1 << 30, HTTPConcurrency: 8}); m.Limits != want {
		t.Errorf("limits %+v", m.Limits)
	}
	if want := (Run{
		Prefer: Native, WASM: &RunWASM{"s3.wasm", []string{"python", "-B", "/app/main.py"}},
		Native: &RunNative{GoPlugin, map[string]string{"linux/amd64": "bin/linux/amd64/ds-s3", "darwin/arm64": "bin/darwin/arm64/ds-s3"}},
	}); !reflect.DeepEqual(m.Run, want) {
		t.Errorf("run %+v", m.Run)
	}
	if want := (Request{Cap: hostabi.CacheWrite, Scope: []string{"own"}, Quota: 1 << 30, Reason: "upload manifests"}); !reflect.DeepEqual(m.Capabilities[3], want) {
		t.Errorf("request %+v", m.Capabilities[3])
	}
	if !m.Capabilities[1].Optional || !m.Capabilities[2].Sockets {
		t.Error("optional or sockets lost")
	}
	upload := m.Commands[0]
	if want := (Arg{Name: "path", Type: "path", Mode: "read", Repeat: true, Required: true}); !reflect.DeepEqual(upload.Args[0], want) {
		t.Errorf("args %+v", upload.Args)
	}
	if f := m.Commands[2].Commands[0].Flags[1]; f.Type != "enum" || f.Default != "a" || len(f.Enum) != 2 {
		t.Errorf("flag %+v", f)
	}
}

func TestManifestJSON(t *testing.T) {
	m := parseFile(t, "testdata/s3.yaml")
	m.Settings = []byte(`{"properties":{"bucket":{"type":"string"}}}`)
	b, err := m.JSON()
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(b) || bytes.Contains(b, []byte(`\u003c`)) || !bytes.Contains(b, []byte(`"time":"10m0s"`)) || bytes.Contains(b, []byte("build")) {
		t.Errorf("got %s", b)
	}
	again, warnings, err := ParseManifest("plugin.json", b)
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	m.ConfigSchema = "" // the package holds the text itself
	if !reflect.DeepEqual(again, m) {
		t.Errorf("got  %+v\nwant %+v", again, m)
	}
	b2, err := again.JSON()
	if err != nil || !bytes.Equal(b, b2) {
		t.Errorf("not the same bytes: %v\n%s\n%s", err, b, b2)
	}
	var viaJSON Manifest
	if err := json.Unmarshal(b, &viaJSON); err != nil || !reflect.DeepEqual(&viaJSON, m) {
		t.Errorf("json.Unmarshal: %v", err)
	}
	if err := json.Unmarshal([]byte(`{"name": 1}`), &viaJSON); err == nil {
		t.Error("json.Unmarshal does not check")
	}
	m.Generated = true
	if _, err := m.JSON(); hostabi.ReasonOf(err) != hostabi.ReasonManifest {
		t.Errorf("generated commands are packaged: %v", err)
	}
	m.Generated = false
	m.Commands[0].Help = strings.Repeat("x", MaxManifest)
	if _, err := m.JSON(); hostabi.ReasonOf(err) != hostabi.ReasonManifest {
		t.Errorf("too large: %v", err)
	}
}

func TestRequestDigest(t *testing.T) {
	const want = "sha256:3296a1a9e86582ca6b2f3bb5ae22414a1d4a3f3be5f2d3d18f0e564e26f60352"
	own := []string{"own"}
	if got := RequestDigest([]Request{{Cap: "config.read", Scope: own, Reason: "x"}, {Cap: "state.write", Scope: own, Optional: true, Quota: 1 << 20}}); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := RequestDigest([]Request{{Cap: "state.write", Scope: []string{"own", "own"}, Optional: true, Quota: 1 << 20, Reason: "y"}, {Cap: "config.read", Scope: own}}); got != want {
		t.Errorf("order, reasons and twins count: %s", got)
	}
	split := RequestDigest([]Request{{Cap: "net.http", Scope: []string{"https://b.example"}}, {Cap: "net.http", Scope: []string{"https://a.example"}}})
	if split != RequestDigest([]Request{{Cap: "net.http", Scope: []string{"https://a.example", "https://b.example"}}}) {
		t.Error("entries of one cap are not merged")
	}
	if split == RequestDigest([]Request{{Cap: "net.http", Scope: []string{"https://a.example", "https://b.example"}, Sockets: true}}) {
		t.Error("sockets do not count")
	}
	if RequestDigest(nil) != hostabi.DigestOf([]byte("[]")) {
		t.Error("no requests")
	}
}

const head = "apiVersion: ds.plugin/v2\nname: x\nversion: 1.0.0\nabi: ds.host/v1\nrun: {wasm: {artifact: x.wasm}}\n" // five lines

func TestManifestErrors(t *testing.T) {
	for name, c := range map[string]struct {
		text   string
		reason hostabi.Reason
		want   string
	}{
		"syntax":            {"apiVersion: [", hostabi.ReasonManifest, "plugin.yaml:2:1: "},
		"not a map":         {"- a\n", hostabi.ReasonManifest, "plugin.yaml:1:1: a plugin manifest is a map, not a list"},
		"empty":             {"", hostabi.ReasonManifest, "plugin.yaml:1:1: a plugin manifest is a map, not a null"},
		"aliases":           {"apiVersion: &a ds.plugin/v2\nname: *a\n", hostabi.ReasonManifest, "plugin.yaml:2:7: alias *a"},
		"large":             {head + "#" + strings.Repeat("x", MaxManifest), hostabi.ReasonManifest, "at most 65536"},
		"api":               {"apiVersion: ds.plugin/v9\n", hostabi.ReasonManifest, `plugin.yaml:1:13: apiVersion is "ds.plugin/v9", want one of ds.plugin/v2; did you mean ds.plugin/v2?`},
		"near api":          {"apiversion: ds.plugin/v2\nname: x\n", hostabi.ReasonManifest, `plugin.yaml:1:1: unknown key "apiversion"; did you mean apiVersion?`},
		"missing":           {"apiVersion: ds.plugin/v2\nname: x\nversion: 1.0.0\n", hostabi.ReasonManifest, "plugin.yaml:1:1: abi is required (and one more problem)"},
		"name":              {strings.Replace(head, "name: x", "name: X_", 1), hostabi.ReasonManifest, `plugin.yaml:2:7: name "X_" is not [a-z][a-z0-9-]{0,31}`},
		"version":           {strings.Replace(head, "1.0.0", "v1.0", 1), hostabi.ReasonManifest, `plugin.yaml:3:10: version "v1.0" is not a semantic version`},
		"float version":     {strings.Replace(head, "1.0.0", "1.0", 1), hostabi.ReasonManifest, `plugin.yaml:3:10: version "1.0" is not`},
		"abi":               {strings.Replace(head, "host/v1", "host/v2", 1), hostabi.ReasonABIUnsupported, "x 1.0.0 needs the host ABI ds.host/v2; this ds has ds.host/v1"},
		"description":       {head + "description: " + strings.Repeat("é", 121), hostabi.ReasonManifest, "plugin.yaml:6:14: description has 121 characters, at most 120"},
		"two lines":         {head + "description: \"a\\nb\"", hostabi.ReasonManifest, "plugin.yaml:6:14: description must be one line"},
		"homepage":          {head + "homepage: http://x.example", hostabi.ReasonManifest, `plugin.yaml:6:11: homepage: "http://x.example" is not an https URL`},
		"keywords":          {head + "keywords: [" + strings.Repeat("a,", 17) + "]", hostabi.ReasonManifest, "keywords has 17 entries, at most 16"},
		"requires":          {head + "requires: [Registry.Pull]", hostabi.ReasonManifest, "plugin.yaml:6:11: requires: \"Registry.Pull\" is not a method"},
		"assets":            {head + "assets: ../x", hostabi.ReasonManifest, `plugin.yaml:6:9: assets: "../x" is not a clean relative path`},
		"capability":        {head + "capabilities:\n  - {cap: gpu.use, scope: [own], reason: r}", hostabi.ReasonABIUnsupported, "x 1.0.0 asks for gpu.use, which this ds does not know"},
		"near capability":   {head + "capabilities:\n  - {cap: net.htp, scope: [args], reason: r}", hostabi.ReasonABIUnsupported, "does not know; did you mean net.http?"},
		"capability key":    {head + "capabilities:\n  - {cap: net.http, scopes: [args], reason: r}", hostabi.ReasonManifest, `plugin.yaml:7:21: unknown key "scopes" in a capability entry; did you mean scope? (and one more problem)`},
		"no reason":         {head + "capabilities:\n  - {cap: net.http, scope: [args]}", hostabi.ReasonManifest, "plugin.yaml:7:5: net.http needs a reason"},
		"empty reason":      {head + "capabilities:\n  - {cap: net.http, scope: [args], reason: \" \"}", hostabi.ReasonManifest, "plugin.yaml:7:5: net.http needs a reason"},
		"no scope":          {head + "capabilities:\n  - {cap: net.http, reason: r}", hostabi.ReasonManifest, "plugin.yaml:7:5: net.http needs a scope"},
		"no cap":            {head + "capabilities:\n  - {scope: [own], reason: r}", hostabi.ReasonManifest, "plugin.yaml:7:5: cap is required"},
		"null entry":        {head + "capabilities:\n  -\n", hostabi.ReasonManifest, "must be a map, not null"},
		"quota":             {head + "capabilities:\n  - {cap: net.http, scope: [args], reason: r, quota: 1}", hostabi.ReasonManifest, "net.http takes no quota"},
		"bad quota":         {head + "capabilities:\n  - {cap: fs.write, scope: [args], reason: r, quota: lots}", hostabi.ReasonManifest, `plugin.yaml:7:54: quota: "lots" is not a size`},
		"sockets":           {head + "capabilities:\n  - {cap: fs.read, scope: [args], reason: r, sockets: true}", hostabi.ReasonManifest, "fs.read takes no sockets"},
		"optional":          {head + "capabilities:\n  - {cap: fs.read, scope: [args], reason: r, optional: yes}", hostabi.ReasonManifest, `optional is "yes", want true or false`},
		"memory":            {head + "limits: {memory: 0}", hostabi.ReasonManifest, "plugin.yaml:6:18: memory must be more than 0"},
		"time":              {head + "limits: {time: 10}", hostabi.ReasonManifest, `plugin.yaml:6:16: time: "10" is not a duration`},
		"http":              {head + "limits: {http_concurrency: 65}", hostabi.ReasonManifest, "http_concurrency is 65, want 1 to 64"},
		"run":               {strings.Replace(head, "{wasm: {artifact: x.wasm}}", "{prefer: wasm}", 1), hostabi.ReasonManifest, "plugin.yaml:5:6: run needs wasm or native"},
		"artifact":          {strings.Replace(head, "x.wasm", "/x.wasm", 1), hostabi.ReasonManifest, `artifact: "/x.wasm" is not a clean relative path`},
		"platform":          {strings.Replace(head, "wasm: {artifact: x.wasm}", "native: {linux/: x}", 1), hostabi.ReasonManifest, `plugin.yaml:5:16: "linux/" is not OS/ARCH`},
		"no platform":       {strings.Replace(head, "wasm: {artifact: x.wasm}", "native: {mode: direct}", 1), hostabi.ReasonManifest, "run.native names no platform"},
		"mode":              {strings.Replace(head, "wasm: {artifact: x.wasm}", "native: {mode: dirct, linux/amd64: x}", 1), hostabi.ReasonManifest, `mode is "dirct", want one of direct, goplugin; did you mean direct?`},
		"command name":      {head + "commands: [{name: -x}]", hostabi.ReasonManifest, `command name "-x" is not`},
		"reserved command":  {head + "commands: [{name: __complete}]", hostabi.ReasonManifest, `command name "__complete" is not`},
		"command twice":     {head + "commands: [{name: a}, {name: b, aliases: [a]}]", hostabi.ReasonManifest, `plugin.yaml:6:23: command or alias "a" is declared twice`},
		"type":              {head + "commands: [{name: a, args: [{name: p, type: file}]}]", hostabi.ReasonManifest, `type is "file", want one of string, bool`},
		"mode of string":    {head + "commands: [{name: a, args: [{name: p, mode: read}]}]", hostabi.ReasonManifest, "p: mode belongs to type path"},
		"enum":              {head + "commands: [{name: a, flags: [{name: p, type: enum}]}]", hostabi.ReasonManifest, "p: type enum needs enum"},
		"enum default":      {head + "commands: [{name: a, flags: [{name: p, type: enum, enum: [x], default: z}]}]", hostabi.ReasonManifest, `p: default "z" is not in enum`},
		"after repeat":      {head + "commands: [{name: a, args: [{name: p, repeat: true}, {name: q}]}]", hostabi.ReasonManifest, "argument q follows one that repeats"},
		"flag twice":        {head + "commands: [{name: a, flags: [{name: p, short: b}, {name: q, short: b}]}]", hostabi.ReasonManifest, "flag b is declared twice"},
		"argument twice":    {head + "commands: [{name: a, args: [{name: p}, {name: p}]}]", hostabi.ReasonManifest, "argument p is declared twice"},
		"long short":        {head + "commands: [{name: a, flags: [{name: p, short: bb}]}]", hostabi.ReasonManifest, "short has 2 characters, at most 1"},
		"deep":              {head + "commands: " + strings.Repeat("[{name: a, commands: ", 9) + "[]" + strings.Repeat("}]", 9), hostabi.ReasonManifest, "nested deeper than 8 levels"},
		"handler":           {head + "commands: [{name: work}]\nevents: {subscribe: [{topic: a.b, handler: wrok}]}", hostabi.ReasonManifest, `handler "wrok" is not a command; did you mean work?`}, //nolint:misspell // under test
		"topic":             {head + "events: {subscribe: [{topic: A}]}", hostabi.ReasonManifest, "plugin.yaml:6:30: topic"},
		"schema":            {head + "config_schema: {type: 5}", hostabi.ReasonManifest, "plugin.yaml:6:16: config_schema"},
		"legacy, no name":   {"version: 1.0.0\n", hostabi.ReasonManifest, "plugin.yaml:1:1: name is required"},
		"commands are text": {head + "commands: generate", hostabi.ReasonManifest, "commands must be a list, not a string"},
	} {
		t.Run(name, func(t *testing.T) {
			m, _, err := ParseManifest("plugin.yaml", []byte(c.text))
			if m != nil || hostabi.ReasonOf(err) != c.reason || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v (%s)\nwant %s (%s)", err, hostabi.ReasonOf(err), c.want, c.reason)
			}
			if p, ok := errors.AsType[Problems](err); !ok || len(p) == 0 || p[0].File != "plugin.yaml" {
				t.Errorf("the cause is %#v, want Problems", errors.Unwrap(err))
			}
		})
	}
}

func TestParseManifestWith(t *testing.T) {
	text := head + "capabilities:\n  - cap: net.http\n    scope: [good, bad]\n    reason: r\n  - {cap: fs.read, scope: bad, reason: r}\n"
	_, _, err := ParseManifestWith("plugin.yaml", []byte(text), func(name Name, c hostabi.Capability, scope string) error {
		if scope != "bad" {
			return nil
		}
		return errors.New(string(name) + " " + string(c) + " " + scope)
	})
	p, _ := errors.AsType[Problems](err)
	if got := p.Error(); got != "plugin.yaml:8:19: x net.http bad\nplugin.yaml:10:27: x fs.read bad" {
		t.Errorf("got %s", got)
	}
}

func TestManifestWarnings(t *testing.T) {
	m, warnings, err := ParseManifest("plugin.yaml", []byte(head+"lisense: MIT\nlimits: {gpu: 1}\nlater: {a: b}\n")) //nolint:misspell // under test
	if err != nil || m == nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range warnings {
		got = append(got, w.String())
	}
	want := []string{
		`plugin.yaml:6:1: unknown key "lisense" in the manifest; did you mean license?`, //nolint:misspell // under test
		`plugin.yaml:7:10: unknown key "gpu" in limits`,
		`plugin.yaml:8:1: unknown key "later" in the manifest`,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestLegacyManifest(t *testing.T) {
	m, warnings, err := ParseManifest("plugin.yaml", []byte("name: old\nversion: v1\ncommands: {x: y}\ncapabilities: [a]\n"))
	if err != nil || m.APIVersion != "" || m.Name != "old" || !m.Legacy() || len(m.Capabilities) != 0 {
		t.Fatalf("got %+v %v", m, err)
	}
	if len(warnings) != 1 || warnings[0].Line != 4 {
		t.Errorf("warnings %v", warnings)
	}
}

func TestCheckName(t *testing.T) {
	for name, want := range map[Name]hostabi.Reason{
		"s3": "", "plugin": hostabi.ReasonNameTaken, "help": hostabi.ReasonNameTaken, "_x": hostabi.ReasonNameTaken, "-x": hostabi.ReasonNameTaken,
		"X": hostabi.ReasonUsage, "": hostabi.ReasonUsage,
	} {
		if got := hostabi.ReasonOf(CheckName(name)); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

func FuzzParseManifest(f *testing.F) {
	b, err := os.ReadFile("testdata/s3.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(head))
	f.Add([]byte(head + "commands: generated\nconfig_schema: {type: object}\n"))
	f.Add([]byte("name: old\n"))
	f.Add([]byte(`{"apiVersion":"ds.plugin/v2","name":"x","version":"1.0.0","abi":"ds.host/v1","run":{"native":{"mode":"direct","a/b":"c"}},"capabilities":[{"cap":"net.http","scope":["args"],"reason":"r"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, _, err := ParseManifest("plugin.yaml", b)
		if err != nil {
			if r := hostabi.ReasonOf(err); m != nil || r != hostabi.ReasonManifest && r != hostabi.ReasonABIUnsupported {
				t.Fatalf("%+v %v", m, err)
			}
			return
		}
		m.Parse([]string{"upload", "--x", "y"})
		if m.APIVersion == "" || m.Generated {
			return
		}
		out, err := m.JSON()
		if err != nil {
			return // grew beyond the limit
		}
		again, warnings, err := ParseManifest("plugin.json", out)
		if err != nil || len(warnings) > 0 {
			t.Fatalf("%q is packaged as %s: %v %v", b, out, err, warnings)
		}
		if second, err := again.JSON(); err != nil || !bytes.Equal(out, second) {
			t.Fatalf("not canonical: %v\n%s\n%s", err, out, second)
		}
		if RequestDigest(m.Capabilities) != RequestDigest(again.Capabilities) {
			t.Fatal("another request digest")
		}
	})
}
