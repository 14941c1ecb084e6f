package main

import (
	"reflect"
	"strings"
	"testing"
)

const example = `--- 
# what we ship
artifact-type: application/vnd.acme.app   # ours
annotations:
  org.opencontainers.image.version: 1.4.0
  "quoted key": "tab\tA"
  single: 'it''s # no comment'
  url: https://example.com/#top

manifests:
- platform: linux/amd64
  path: dist/linux/amd64/app
  mediaType: application/octet-stream

- path: ./README.md
`

func TestParseManifestFile(t *testing.T) {
	t.Parallel()
	want := &manifestFile{
		ArtifactType: "application/vnd.acme.app",
		Annotations: map[string]string{
			"org.opencontainers.image.version": "1.4.0", "quoted key": "tab\tA", "single": "it's # no comment", "url": "https://example.com/#top",
		},
		Manifests: []manifestEntry{
			{Platform: "linux/amd64", Path: "dist/linux/amd64/app", MediaType: "application/octet-stream", platform: platform("linux/amd64"), line: 11},
			{Path: "README.md", line: 15},
		},
	}
	crlf := strings.ReplaceAll(example, "\n", "\r\n")
	indented := strings.NewReplacer("- p", "    -  p", "  path: d", "       path: d", "  mediaT", "       mediaT").Replace(example)
	for name, text := range map[string]string{"block": example, "CRLF": crlf, "indented": indented} {
		got, err := parseManifestFile("f", []byte(text))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	got, err := parseManifestFile("f", []byte(` {"artifact-type": "t", "manifests": [{"platform": "linux/arm/v7", "path": "a", "mediaType": "m"}]} `))
	if err != nil || len(got.Manifests) != 1 || got.Manifests[0].platform.Variant != "v7" || got.ArtifactType != "t" {
		t.Errorf("JSON: got %+v, %v", got, err)
	}
}

func TestParseManifestFileErrors(t *testing.T) {
	t.Parallel()
	const m = "manifests:\n- path: a\n"
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "f: manifests is required"},
		{"no entries", "artifact-type: x\n", "f: manifests is required"},
		{"unknown key", "artifact_type: x\n" + m, `f:1: unknown key "artifact_type"`},
		{"twice", m + "manifests:\n", "f:3: manifests is there twice"},
		{"annotation twice", "annotations:\n  a: 1\n  a: 2\n", "f:3: a is there twice"},
		{"annotation list", "annotations:\n  - a: 1\n", `f:2: "a" is out of place`},
		{"entry without dash", "manifests:\n  path: a\n", `f:2: "path" is out of place`},
		{"unknown entry key", m + "  size: 1\n", `f:3: unknown key "size"`},
		{"path twice", m + "  path: b\n", "f:3: path is empty or there twice"},
		{"no path", "manifests:\n- platform: linux/amd64\n", "f:2: an entry of manifests needs a path"},
		{"platform", "manifests:\n- path: a\n  platform: linux\n", `f:2: platform "linux"`},
		{"tab", "annotations:\n\ta: b\n", "f:2: tabs"},
		{"no colon", "artifact-type\n", "f:1: not of the form"},
		{"no space", "artifact-type:x\n", "f:1: not of the form"},
		{"no value", "artifact-type:\n", "f:1: artifact-type needs a value"},
		{"inline map", "annotations: {a: b}\n", `f:1: "{a: b}" has a meaning`},
		{"inline list entry", "manifests:\n- {path: a}\n", `f:2: "{path: a}" has a meaning`},
		{"anchor", "artifact-type: &a x\n", `f:1: "&a x" has a meaning`},
		{"block text", "artifact-type: |\n  x\n", `f:1: "|" has a meaning`},
		{"colon in value", "artifact-type: a: b\n", `f:1: "a: b" holds a colon`},
		{"null", "artifact-type: Null\n", "f:1: Null is no string"},
		{"open quote", "artifact-type: \"x\n", "f:1: bad string in double quotes"},
		{"open single quote", "artifact-type: 'x''\n", "f:1: bad string in single quotes"},
		{"bad escape", `artifact-type: "\x"` + "\n", "f:1: bad string in double quotes"},
		{"after quote", "artifact-type: 'a' b\n", "f:1: text after the value"},
		{"comment without space", "artifact-type: 'a'#b\n", "f:1: text after the value"},
		{"two lines", "artifact-type: a\n  b\n", "f:2: not of the form"},
		{"uneven", "annotations:\n  a: 1\n   b: 2\n", `f:3: "b" does not stand below`},
		{"uneven dash", "manifests:\n -  path: a\n  - path: b\n", `f:3: "path" does not stand below`},
		{"indented first", "  a: b\n", `f:1: "a" is out of place`},
		{"second document", m + "---\n", `f:3: "---" has a meaning`},
		{"escape", "manifests:\n- path: ../a\n", `f:2: path "../a" is no file below`},
		{"absolute", "manifests:\n- path: /etc/passwd\n", `f:2: path "/etc/passwd"`},
		{"backslash", "manifests:\n- path: a\\b\n", `f:2: path "a\\b"`},
		{"itself", "manifests:\n- path: ./\n", `f:2: path "."`},
		{"no UTF-8", "artifact-type: \xff\n", "f: the file is no UTF-8"},
		{"many", "manifests:\n" + strings.Repeat("- path: a\n", maxEntries+1), "f: manifests has 1001 entries"},
		{"long", strings.Repeat("#\n", maxManifestFile), "f has more than 1024 KiB"},
		{"JSON syntax", "{\n\"manifests\": [\n}", "f:3: invalid character '}'"},
		{"JSON unknown key", "{\n\"size\": 1}", `f:2: unknown field "size"`},
		{"JSON type", "{\n\"manifests\": 1}", "f:2: "},
		{"JSON tail", `{"manifests": [{"path": "a"}]} x`, "f:1: text after the object"},
		{"JSON path", `{"manifests": [{"path": "../a"}]}`, `f: path "../a"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := parseManifestFile("f", []byte(c.text))
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("got %v, want %s…", err, c.want)
			}
		})
	}
}
