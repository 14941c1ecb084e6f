package main_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"

	porter "github.com/delivery-station/ds/cmd/ds-porter"
	"github.com/delivery-station/ds/internal/yamlfile"
)

// FuzzManifestFile: what our part of YAML accepts means the same to a whole YAML parser, and to JSON.
func FuzzManifestFile(f *testing.F) {
	f.Add("artifact-type: a # b\nannotations:\n  \"k\\u0041\": 'v''w'\n  n : 1.50\nmanifests:\n- platform: linux/arm/v7\n  path: ./a b\n- path: 'c'\n")
	f.Add(`{"manifests":[{"path":"a"}]}`)
	f.Add("manifests:\n  -  path: ~/a\n     mediaType: \"\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := porter.ParseManifestFile("f", []byte(text))
		if err != nil {
			return
		}
		b, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		again, err := porter.ParseManifestFile("f", b)
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if b2, _ := json.Marshal(again); string(b2) != string(b) {
			t.Errorf("JSON gives %s, YAML %s", b2, b)
		}
		if text == "" || json.Valid([]byte(text)) {
			return
		}
		root, err := yamlfile.Parse("f", []byte(text), yamlfile.Limits{})
		if err != nil {
			t.Fatalf("%q is no YAML: %v", text, err)
		}
		want := make(map[string]string)
		if n := root.Get("annotations"); n != nil {
			for _, p := range n.Pairs {
				want[p.Key.Text] = p.Value.Text
			}
		}
		if len(want)+len(got.Annotations) > 0 && !reflect.DeepEqual(want, got.Annotations) {
			t.Errorf("annotations %q, YAML says %q", got.Annotations, want)
		}
		if n := root.Get("artifact-type"); n != nil && n.Text != got.ArtifactType {
			t.Errorf("artifact-type %q, YAML says %q", got.ArtifactType, n.Text)
		}
		items := root.Get("manifests").Items
		if len(items) != len(got.Manifests) {
			t.Fatalf("%d entries, YAML says %d", len(got.Manifests), len(items))
		}
		for i, e := range got.Manifests {
			platform, mediaType := member(items[i], "platform"), member(items[i], "mediaType")
			if e.Platform != platform || e.MediaType != mediaType {
				t.Errorf("entry %d is %+v, YAML says %s", i, e, fmt.Sprint(platform, mediaType))
			}
		}
	})
}

func member(n *yamlfile.Node, key string) string {
	if v := n.Get(key); v != nil {
		return v.Text
	}
	return ""
}
