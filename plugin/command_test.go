package plugin

import (
	"errors"
	"fmt"
	"iter"
	"reflect"
	"strings"
	"testing"

	"github.com/delivery-station/ds/hostabi"
)

func TestParseArgs(t *testing.T) {
	m, _, err := ParseManifest("plugin.yaml", []byte(head+`commands:
  - name: up
    aliases: [put]
    args: [{name: target, type: url}, {name: files, type: path, repeat: true}]
    flags: [{name: out, short: o, type: path, mode: write}, {name: force, short: f, type: bool}, {name: n, type: int}, {name: from, type: ref}]
  - name: bundle
    commands:
      - {name: create, args: [{name: d, type: digest}]}
  - name: push
    args: [{name: source, type: path}, {name: to, type: ref, required: true}]
    flags: [{name: manifest, short: m, type: path}]
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args    string
		command string
		typed   string // "index:type:mode:value" …
	}{
		{"", "", ""},
		{"unknown x", "", ""},
		{"up", "up", ""},
		{"put https://h a b", "up", "1:url::https://h 2:path:read:a 3:path:read:b"},
		{"up --force a b -f c", "up", "2:url::a 3:path:read:b 5:path:read:c"},
		{"up --out o1 -o o2 --out=o3 -o=o4 u f", "up", "2:path:write:o1 4:path:write:o2 5:path:write:o3 6:path:write:o4 7:url::u 8:path:read:f"},
		{"up --n 5 u", "up", "3:url::u"},
		{"up --format json u", "up", "3:url::u"},
		{"up --unknown u --other=x f", "up", "2:url::u 4:path:read:f"},
		{"up -- --out -o f", "up", "2:url::--out 3:path:read:-o 4:path:read:f"},
		{"up u -", "up", "1:url::u"},
		{"up --out", "up", ""},
		{"up --from=reg.io/a:1@x u", "up", "1:ref::reg.io/a:1@x 2:url::u"},
		{"bundle", "bundle", ""},
		{"bundle create sha256:x y", "bundle create", "2:digest::sha256:x"},
		{"--force up a", "", ""},
		{"push", "push", ""},
		{"push reg.io/a", "push", "1:ref::reg.io/a"},
		{"push dir reg.io/a", "push", "1:path:read:dir 2:ref::reg.io/a"},
		{"push dir -m f reg.io/a more", "push", "1:path:read:dir 3:path:read:f 4:ref::reg.io/a"},
		{"push -m f reg.io/a", "push", "2:path:read:f 3:ref::reg.io/a"},
	} {
		command, typed := m.Parse(strings.Fields(c.args))
		var got []string
		for _, v := range typed {
			got = append(got, fmt.Sprintf("%d:%s:%s:%s", v.Index, v.Type, v.Mode, v.Value))
		}
		if command != c.command || strings.Join(got, " ") != c.typed {
			t.Errorf("%q: got %q %q, want %q %q", c.args, command, got, c.command, c.typed)
		}
	}
	path, cmd := m.Command([]string{"bundle", "create", "create"})
	if !reflect.DeepEqual(path, []string{"bundle", "create"}) || cmd.Name != "create" {
		t.Errorf("Command: %q %v", path, cmd)
	}
}

func TestSuggest(t *testing.T) {
	all := []string{"porter", "plugin", "port", "s3", "cache", "config", "notify", "porter-extra"}
	for word, want := range map[string][]string{
		"porte": {"port", "porter", "porter-extra"}, "prot": {"port"}, "PORTER": {"porter", "port", "porter-extra"}, "cahce": {"cache"},
		"not": {"notify"}, "s4": {"s3"}, "zz": {}, "": nil, "confgi": {"config"}, strings.Repeat("x", 65): nil,
	} {
		if got := Suggest(word, all); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %q, want %q", word, got, want)
		}
	}
}

func tags(list ...string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, tag := range list {
			if !yield(tag, nil) {
				return
			}
		}
	}
}

func TestPickVersion(t *testing.T) {
	all := []string{"latest", "1.2.0", "v1.2.3", "1.10.0", "2.0.0-rc.1", "1.3.0_build.5", "0.9.0", "1.2", "sha256-abc", "v1.2.0", "1.2.10"}
	for constraint, want := range map[string]string{
		"": "1.10.0", "latest": "1.10.0", "1.2": "1.2.10", "1.2.3": "v1.2.3", "~1.2": "1.2.10", "^1.2": "1.10.0", "1": "1.10.0", "1.2.0": "1.2.0",
		">=1.2 <1.4": "1.3.0_build.5", "<1": "0.9.0", "2.0.0-rc.1": "2.0.0-rc.1", ">=2.0.0-0": "2.0.0-rc.1", "v1.2": "1.2.10", "1.2.x": "1.2.10",
	} {
		if got, err := PickVersion(tags(all...), constraint); err != nil || got != want {
			t.Errorf("%q: got %q %v, want %q", constraint, got, err, want)
		}
	}
	if got, err := PickVersion(tags("latest", "edge"), ""); got != "latest" || err != nil {
		t.Errorf("only latest: %q %v", got, err)
	}
	for _, c := range []struct {
		tags       []string
		constraint string
		reason     hostabi.Reason
		want       string
	}{
		{all, "3", hostabi.ReasonRefNotFound, "no version matches 3; nearest are 2.0.0-rc.1, 1.10.0, 1.3.0_build.5, 1.2.10, v1.2.3"},
		{all, "1.2.5", hostabi.ReasonRefNotFound, "nearest are 1.3.0_build.5, 1.2.10, v1.2.3, 1.2.0, v1.2.0"},
		{all, ">=2", hostabi.ReasonRefNotFound, "no version matches"},
		{[]string{"1.0.0-a"}, "", hostabi.ReasonRefNotFound, "no version is a release; there are 1.0.0-a"},
		{[]string{"latest"}, "1", hostabi.ReasonRefNotFound, "no tag is a version"},
		{nil, "", hostabi.ReasonRefNotFound, "no tag is a version"},
		{all, "not a version", hostabi.ReasonUsage, "is not a version or constraint"},
		{all, strings.Repeat("1", 300), hostabi.ReasonUsage, "is not a version or constraint"},
	} {
		got, err := PickVersion(tags(c.tags...), c.constraint)
		if got != "" || hostabi.ReasonOf(err) != c.reason || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: got %q %v, want %s", c.constraint, got, err, c.want)
		}
	}
	broken := errors.New("page 2 is gone")
	if _, err := PickVersion(func(yield func(string, error) bool) { _ = yield("1.0.0", nil) && yield("", broken) }, ""); !errors.Is(err, broken) {
		t.Errorf("an error of tags is lost: %v", err)
	}
}
