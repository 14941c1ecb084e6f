//go:build !wasip1

package main_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/delivery-station/ds/cache"
	porter "github.com/delivery-station/ds/cmd/ds-porter"
	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/sandbox"
)

// doc is what scripts read of porter's documents.
type doc struct {
	ID, Reference, Digest string
	Size                  int64
	LocalPath             string `json:"local_path"`
	Metadata              map[string]string
	Cached                bool
	CachedAt              string   `json:"cached_at"`
	ExportedFiles         []string `json:"exported_files"`
}

const (
	image = "application/vnd.oci.image.manifest.v1+json"
	index = "application/vnd.oci.image.index.v1+json"
)

// descriptor is the JSON of a descriptor; a title is not set if empty.
func descriptor(mediaType, content, title string) map[string]any {
	d := map[string]any{"mediaType": mediaType, "digest": hostabi.DigestOf([]byte(content)), "size": len(content)}
	if title != "" {
		d["annotations"] = map[string]string{"org.opencontainers.image.title": title}
	}
	return d
}

func imageOf(layers ...map[string]any) map[string]any {
	return map[string]any{
		"schemaVersion": 2, "mediaType": image, "artifactType": "application/vnd.acme", "annotations": map[string]string{"k": "v"},
		"config": descriptor("application/vnd.oci.empty.v1+json", "{}", ""), "layers": layers,
	}
}

// app publishes an artifact of two files.
func (s *station) app(ref string) hostabi.Digest {
	m := imageOf(descriptor("text/plain", "alpha", "a.txt"), descriptor("text/plain", "beta", "b.txt"))
	return s.publish(ref, nil, []any{m}, "{}", "alpha", "beta")
}

// multi publishes an index of two platforms.
func (s *station) multi(ref string) hostabi.Digest {
	var manifests []any
	var children []any
	for _, arch := range []string{"amd64", "arm64"} {
		m := imageOf(descriptor("text/plain", arch, "app"), descriptor("text/plain", "doc", "doc"))
		b, err := json.Marshal(m)
		if err != nil {
			s.t.Fatal(err)
		}
		child := descriptor(image, string(b), "")
		child["platform"] = map[string]string{"os": "linux", "architecture": arch}
		manifests, children = append(manifests, m), append(children, child)
	}
	i := map[string]any{"schemaVersion": 2, "mediaType": index, "manifests": children, "annotations": map[string]string{"i": "x"}}
	return s.publish(ref, i, manifests, "{}", "amd64", "arm64", "doc")
}

func TestPullDocument(t *testing.T) {
	s := newStation(t)
	s.app(s.ref("acme/app:1"))
	r := s.run("pull", s.ref("acme/app:1"), "-o", "out")
	got := strings.ReplaceAll(r.stdout, s.server.Host, "HOST")
	got = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`).ReplaceAllString(got, "TIME")
	const want = `{
  "id": "DIGEST16",
  "reference": "HOST/acme/app:1",
  "digest": "sha256:DIGEST64",
  "size": 9,
  "local_path": "out",
  "metadata": {
    "k": "v"
  },
  "cached": false,
  "cached_at": "TIME",
  "exported_files": [
    "out/a.txt",
    "out/b.txt"
  ]
}
`
	got = regexp.MustCompile(`"[0-9a-f]{16}"`).ReplaceAllString(got, `"DIGEST16"`)
	got = regexp.MustCompile(`sha256:[0-9a-f]{64}`).ReplaceAllString(got, `sha256:DIGEST64`)
	if r.exit != 0 || r.stderr != "" || filepath.ToSlash(got) != want {
		t.Errorf("exit %d, stderr %q, stdout %s\nwant %s", r.exit, r.stderr, got, want)
	}
	if files := s.tree("out"); !maps.Equal(files, map[string]string{"out/a.txt": "alpha", "out/b.txt": "beta"}) {
		t.Errorf("files: %q", files)
	}
}

func TestSecondPullIsCached(t *testing.T) {
	s := newStation(t)
	digest := s.app(s.ref("acme/app:1"))
	first := document[doc](s, "fetch", s.ref("acme/app:1"))
	s.server.Forget()
	second := document[doc](s, "pull", s.ref("acme/app:1"))
	if first.Cached || !second.Cached || second.Digest != string(digest) || second.ID != digest.Hex()[:16] || second.CachedAt != first.CachedAt {
		t.Errorf("first %+v, second %+v", first, second)
	}
	if n := s.server.Count("GET", ""); n != 0 {
		t.Errorf("the second pull sent %d GETs: %+v", n, s.server.Requests())
	}
	if len(second.ExportedFiles) != 0 || second.LocalPath != "" {
		t.Errorf("files without --output: %+v", second)
	}
}

func TestList(t *testing.T) {
	s := newStation(t)
	if r := s.run("list"); r.exit != 0 || r.stdout != "[]\n" {
		t.Errorf("empty list: exit %d, %q", r.exit, r.stdout)
	}
	s.app(s.ref("acme/app:1"))
	s.multi(s.ref("acme/multi:1"))
	one := document[doc](s, "pull", s.ref("acme/app:1"))
	two := document[doc](s, "pull", s.ref("acme/multi:1"), "--all-arch", "-o", "out")
	one.Cached, two.Cached = true, true
	two.LocalPath, two.ExportedFiles = "", nil
	if got := document[[]doc](s, "list"); !reflect.DeepEqual(got, []doc{one, two}) {
		t.Errorf("got %+v, want %+v and %+v", got, one, two)
	}
	s.terminal.StdoutTTY = true
	if r := s.run("list"); !strings.HasPrefix(r.stdout, "ID ") || !strings.Contains(r.stdout, one.ID+"  "+one.Reference) {
		t.Errorf("table: %s", r.stdout)
	}
	s.terminal.StdoutTTY = false

	// What the cache lost is not listed, and its record is dropped.
	lost, err := cache.Open(t.Context(), cache.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lost.Close() })
	s.cache, lost = lost, s.cache
	if got := document[[]doc](s, "list"); len(got) != 0 {
		t.Errorf("after the cache was lost: %+v", got)
	}
	for e, err := range s.state.List(t.Context(), "porter", "") {
		t.Errorf("record is left: %s %v", e.Key, err)
	}
	s.cache, _ = lost, s.cache
	if got := document[doc](s, "pull", one.Reference); !got.Cached {
		t.Errorf("pull: %+v", got)
	}
	if got := document[[]doc](s, "list"); len(got) != 1 || got[0].Reference != one.Reference {
		t.Errorf("pulled again: %+v", got)
	}
}

func TestForeignRecordsAreDropped(t *testing.T) {
	s := newStation(t)
	for key, value := range map[string]string{"artifact/x": "{", "artifact/y": `{"digest":"sha256:x"}`, "artifact/z": `{"digest":"` + string(hostabi.DigestOf(nil)) + `"}`} {
		if _, err := s.state.Put(t.Context(), "porter", hostabi.StateEntry{Key: key, Value: []byte(value)}, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	if got := document[[]doc](s, "list"); len(got) != 0 {
		t.Errorf("got %+v", got)
	}
}

func TestPullPlatforms(t *testing.T) {
	s := newStation(t)
	digest := s.multi(s.ref("acme/app:1"))
	for _, c := range []struct {
		name string
		args []string
		want map[string]string
	}{
		{"all", []string{"--all-arch"}, map[string]string{"linux/amd64/app": "amd64", "linux/amd64/doc": "doc", "linux/arm64/app": "arm64", "linux/arm64/doc": "doc"}},
		{"one", []string{"--platform", "linux/arm64"}, map[string]string{"app": "arm64", "doc": "doc"}},
		{"two", []string{"--platform=linux/arm64", "--platform", "linux/amd64"}, map[string]string{"linux/amd64/app": "amd64", "linux/amd64/doc": "doc", "linux/arm64/app": "arm64", "linux/arm64/doc": "doc"}},
	} {
		got := document[doc](s, append([]string{"pull", s.ref("acme/app:1"), "-o", c.name}, c.args...)...)
		files := make(map[string]string)
		for name, content := range s.tree(c.name) {
			files[strings.TrimPrefix(name, c.name+"/")] = content
		}
		if !maps.Equal(files, c.want) || len(got.ExportedFiles) != len(c.want) || got.Digest != string(digest) {
			t.Errorf("%s: files %q, document %+v", c.name, files, got)
		}
		for _, f := range got.ExportedFiles {
			if _, err := os.Stat(f); err != nil {
				t.Error(err)
			}
		}
	}
	for _, args := range [][]string{{"--all-arch", "--platform", "linux/amd64"}, {"--platform", "linux"}, {"-o", ""}} {
		if r := s.run(append([]string{"pull", s.ref("acme/app:1")}, args...)...); r.exit != 2 || !strings.HasPrefix(r.stderr, "Error DS1001: ") {
			t.Errorf("%q: exit %d, %s", args, r.exit, r.stderr)
		}
	}
	if r := s.run("pull", s.ref("acme/app:1"), "--platform", "plan9/386"); r.exit != 3 {
		t.Errorf("missing platform: exit %d, %s", r.exit, r.stderr)
	}
}

// TestHostileTitles: what an artifact calls its files decides no place outside of the output directory.
func TestHostileTitles(t *testing.T) {
	s := newStation(t)
	titles := []string{"../../up.txt", "/abs.txt", "..", ".hidden", "dir/in.txt", "\x1b[2J", "a.txt", "A.TXT"}
	var layers []map[string]any
	blobs := []string{"{}"}
	for _, title := range titles {
		layers, blobs = append(layers, descriptor("text/plain", "of "+title, title)), append(blobs, "of "+title)
	}
	s.publish(s.ref("evil/app:1"), nil, []any{imageOf(layers...)}, blobs...)
	r := s.run("pull", s.ref("evil/app:1"), "-o", "sub/out")
	if r.exit != 0 {
		t.Fatalf("exit %d: %s", r.exit, r.stderr)
	}
	want := make(map[string]string)
	for title, name := range map[string]string{
		"../../up.txt": "up.txt", "/abs.txt": "abs.txt", "..": "", ".hidden": "", "dir/in.txt": "in.txt", "\x1b[2J": "", "a.txt": "a.txt", "A.TXT": "",
	} {
		if name == "" {
			name = "sha256-" + hostabi.DigestOf([]byte("of "+title)).Hex()
		}
		want["sub/out/"+name] = "of " + title
	}
	if got := s.tree("."); !maps.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if strings.Count(r.stderr, "note: ") != 4 || strings.Contains(r.stderr, "\x1b") {
		t.Errorf("stderr: %q", r.stderr)
	}
}

// TestExportIsWhole: an export that fails leaves nothing behind, and replaces links instead of following them.
func TestExportIsWhole(t *testing.T) {
	s := newStation(t)
	s.app(s.ref("acme/app:1"))
	s.write("out/b.txt/in the way", "")
	r := s.run("pull", s.ref("acme/app:1"), "-o", "out")
	if r.exit != 2 || !strings.HasPrefix(r.stderr, "Error DS1001: out: ") {
		t.Errorf("exit %d, %s", r.exit, r.stderr)
	}
	for name := range s.tree("out") {
		if strings.Contains(name, ".ds-porter") {
			t.Errorf("left behind: %s", name)
		}
	}
	s.write("elsewhere", "mine")
	if err := os.Mkdir("linked", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../elsewhere", "linked/a.txt"); err != nil {
		t.Skip("no symbolic links: ", err)
	}
	document[doc](s, "pull", s.ref("acme/app:1"), "-o", "linked")
	if files := s.tree("."); files["elsewhere"] != "mine" || files["linked/a.txt"] != "alpha" {
		t.Errorf("files: %q", files)
	}
	if r := s.run("pull", s.ref("acme/app:1"), "-o", "elsewhere"); r.exit != 2 {
		t.Errorf("output is a file: exit %d, %s", r.exit, r.stderr)
	}
}

func TestPush(t *testing.T) {
	s := newStation(t)
	s.write("src/b.tar.gz", "beta")
	s.write("src/a.txt", "alpha")
	s.write("src/.hidden", "secret")
	r := s.run("push", "src", s.ref("acme/files:2"))
	var pushed doc
	if err := json.Unmarshal([]byte(r.stdout), &pushed); err != nil || r.exit != 0 || r.stderr != "note: \".hidden\" is hidden and left out\n" {
		t.Fatalf("exit %d, %s %v", r.exit, r.stderr, err)
	}
	if pushed.Reference != s.ref("acme/files:2") || pushed.Size != 9 || pushed.LocalPath != "src" || !pushed.Cached {
		t.Errorf("got %+v", pushed)
	}
	document[doc](s, "pull", s.ref("acme/files:2"), "-o", "out")
	if files := s.tree("out"); !maps.Equal(files, map[string]string{"out/a.txt": "alpha", "out/b.tar.gz": "beta"}) {
		t.Errorf("files: %q", files)
	}
	one := document[doc](s, "push", "src/a.txt", s.ref("acme/files:one"))
	again := document[doc](s, "push", "src/a.txt", s.ref("acme/files:again"))
	if one.Digest != again.Digest || one.Size != 5 {
		t.Errorf("one file: %+v, again %+v", one, again)
	}
	if tags := s.tags("acme/files"); !slices.Equal(tags, []string{"2", "again", "one"}) {
		t.Errorf("tags: %q", tags)
	}
	if err := os.Mkdir("empty", 0o755); err != nil {
		t.Fatal(err)
	}
	s.write("deep/sub/x", "")
	for args, want := range map[string]string{
		"nothing REF": "nothing: no such file or directory", "empty REF": "empty has no files to push",
		"deep REF": `deep: "sub" is no regular file`, "REF": "push needs a file or directory", "a b REF": "", "": "ds porter push needs REF",
	} {
		words := strings.Fields(strings.ReplaceAll(args, "REF", s.ref("acme/files:3")))
		if r := s.run(append([]string{"push"}, words...)...); r.exit != 2 || !strings.HasPrefix(r.stderr, "Error DS1001: "+want) {
			t.Errorf("push %s: exit %d, %s", args, r.exit, r.stderr)
		}
	}
}

// tags are those of a repository, sorted.
func (s *station) tags(repo string) (tags []string) {
	s.t.Helper()
	for tag, err := range s.client.Tags(s.t.Context(), s.ref(repo)) {
		if err != nil {
			s.t.Fatal(err)
		}
		tags = append(tags, tag)
	}
	slices.Sort(tags)
	return tags
}

const shipped = `artifact-type: application/vnd.acme.app
annotations:
  org.opencontainers.image.version: 1.4.0
manifests:
  - {platform: linux/amd64, path: dist/amd64/app}
`

func TestPushManifest(t *testing.T) {
	s := newStation(t)
	s.write("proj/ds.manifest.yaml", strings.Replace(shipped, "  - {platform: linux/amd64, path: dist/amd64/app}\n",
		"  - platform: linux/amd64\n    path: dist/amd64/app\n  - platform: linux/amd64\n    path: doc\n    mediaType: text/markdown\n  - platform: linux/arm64\n    path: dist/arm64/app\n", 1))
	s.write("proj/dist/amd64/app", "A")
	s.write("proj/dist/arm64/app", "B")
	s.write("proj/doc", "D")
	r := document[doc](s, "push", "-m", "proj/ds.manifest.yaml", s.ref("acme/multi:1"), "--no-latest")
	if r.Size != 3 || r.Metadata["org.opencontainers.image.version"] != "1.4.0" || r.LocalPath != "" {
		t.Errorf("got %+v", r)
	}
	if tags := s.tags("acme/multi"); !slices.Equal(tags, []string{"1"}) {
		t.Errorf("tags: %q", tags)
	}
	elsewhere := document[doc](s, "push", "--manifest=proj/ds.manifest.yaml", "proj", s.ref("acme/multi:2"))
	if elsewhere.Digest != r.Digest || elsewhere.LocalPath != "proj" {
		t.Errorf("got %+v", elsewhere)
	}
	if tags := s.tags("acme/multi"); !slices.Equal(tags, []string{"1", "2", "latest"}) {
		t.Errorf("tags: %q", tags)
	}
	document[doc](s, "pull", s.ref("acme/multi"), "--all-arch", "-o", "out")
	want := map[string]string{"out/linux/amd64/app": "A", "out/linux/amd64/doc": "D", "out/linux/arm64/app": "B"}
	if files := s.tree("out"); !maps.Equal(files, want) {
		t.Errorf("files: %q", files)
	}

	s.write("bad/flow.yaml", shipped)
	s.write("bad/missing.yaml", "manifests:\n- path: nothing\n")
	s.write("bad/link.yaml", "manifests:\n- path: link\n")
	s.write("secret", "mine")
	if err := os.Symlink("../secret", "bad/link"); err != nil {
		t.Skip("no symbolic links: ", err)
	}
	for name, want := range map[string]string{
		"flow": `bad/flow.yaml:5: "{platform`, "missing": "bad/nothing: no such file or directory", "link": "bad/link: ", "none": "bad/none.yaml: no such file",
	} {
		if r := s.run("push", "-m", "bad/"+name+".yaml", s.ref("acme/bad:1")); r.exit != 2 || !strings.HasPrefix(r.stderr, "Error DS1001: "+want) {
			t.Errorf("%s: exit %d, %s", name, r.exit, r.stderr)
		}
	}
}

func TestInspectFetchesNoLayer(t *testing.T) {
	s := newStation(t)
	digest := s.multi(s.ref("acme/app:1"))
	type layer struct {
		Title  string
		Digest hostabi.Digest
		Size   int64
	}
	type inspection struct {
		Reference, MediaType string
		Digest               hostabi.Digest
		Size                 int64
		Annotations          map[string]string
		Layers               []layer
		Manifests            []struct {
			Platform string
			Size     int64
			Layers   []layer
		}
	}
	s.server.Forget()
	got := document[inspection](s, "inspect", s.ref("acme/app:1"))
	if n := s.server.Count("GET", "/blobs/"); n != 0 {
		t.Errorf("%d blobs were fetched", n)
	}
	if got.Digest != digest || got.Reference != s.ref("acme/app:1") || got.Size != 13 || got.Annotations["i"] != "x" || len(got.Manifests) != 2 {
		t.Fatalf("got %+v", got)
	}
	if m := got.Manifests[1]; m.Platform != "linux/arm64" || m.Size != 8 || len(m.Layers) != 2 || m.Layers[0] != (layer{"app", hostabi.DigestOf([]byte("arm64")), 5}) {
		t.Errorf("got %+v", m)
	}
	s.app(s.ref("acme/one:1"))
	if one := document[inspection](s, "inspect", s.ref("acme/one:1")); len(one.Layers) != 2 || one.Size != 9 || one.Annotations["k"] != "v" {
		t.Errorf("got %+v", one)
	}
	if got := document[[]doc](s, "list"); len(got) != 0 {
		t.Errorf("inspect made a record: %+v", got)
	}
}

func TestCopy(t *testing.T) {
	s := newStation(t)
	digest := s.multi(s.ref("acme/app:1"))
	got := document[doc](s, "copy", s.ref("acme/app:1"), s.ref("mirror/app:2"))
	if got.Reference != s.ref("mirror/app:2") || got.Digest != string(digest) || got.Size != 13 {
		t.Errorf("got %+v", got)
	}
	if d, err := s.client.Resolve(t.Context(), s.ref("mirror/app:2")); err != nil || d.Digest != digest {
		t.Errorf("target: %+v, %v", d, err)
	}
	layout := "oci-layout:" + filepath.Join(t.TempDir(), "layout") + ":1"
	document[doc](s, "copy", s.ref("mirror/app:2"), layout)
	document[doc](s, "pull", layout, "--platform", "linux/amd64", "-o", "out")
	if files := s.tree("out"); files["out/app"] != "amd64" {
		t.Errorf("files: %q", files)
	}
}

func TestTerminal(t *testing.T) {
	s := newStation(t)
	s.app(s.ref("acme/app:1"))
	s.terminal.StdoutTTY = true
	line := regexp.MustCompile(`^Wrote 2 files to \./out   [0-9.]+ (B|KiB), [0-9.]+m?s\n$`)
	if r := s.run("pull", s.ref("acme/app:1"), "-o", "./out"); r.exit != 0 || !line.MatchString(r.stdout) {
		t.Errorf("pull: exit %d, %q", r.exit, r.stdout)
	}
	cached := regexp.MustCompile(`^Pulled \S+/acme/app:1   [0-9.]+ (B|KiB), [0-9.]+ (B|KiB) from cache, [0-9.]+m?s\n$`)
	if r := s.run("pull", s.ref("acme/app:1")); !cached.MatchString(r.stdout) {
		t.Errorf("cached pull: %q", r.stdout)
	}
	for _, args := range [][]string{{"--format", "json"}, {"--format=yaml"}} {
		if r := s.run(append([]string{"pull", s.ref("acme/app:1")}, args...)...); !strings.Contains(r.stdout, "cached") || strings.HasPrefix(r.stdout, "Pulled") {
			t.Errorf("%q: %q", args, r.stdout)
		}
	}
	s.terminal.Format = "json" // typed before the plugin's name
	document[doc](s, "pull", s.ref("acme/app:1"))
	if r := s.run("pull", s.ref("acme/app:1"), "--format", "nonsense"); r.exit != 2 || !strings.HasPrefix(r.stderr, "Error DS1004: ") {
		t.Errorf("bad format: exit %d, %s", r.exit, r.stderr)
	}
}

func TestErrors(t *testing.T) {
	s := newStation(t)
	s.app(s.ref("acme/app:1"))
	for _, c := range []struct {
		args string
		exit int
		want string
	}{
		{"pull REF:2", 3, "Error DS2002: "},
		{"pull Not/A/Ref", 2, "Error DS2001: "},
		{"pull", 2, "Error DS1001: ds porter pull needs REF"},
		{"pull REF:1 more", 2, "Error DS1001: "},
		{"pull --outptu x REF:1", 2, "Error DS1002: "},
		{"pul REF:1", 2, "Error DS1002: "},
		{"inspect REF:2", 3, "Error DS2002: "},
		{"copy REF:2 REF:3", 3, "Error DS2002: "},
		{"copy REF:1", 2, "Error DS1001: ds porter copy needs DST"},
	} {
		r := s.run(strings.Fields(strings.ReplaceAll(c.args, "REF", s.ref("acme/app")))...)
		if r.exit != c.exit || !strings.HasPrefix(r.stderr, c.want) || r.stdout != "" {
			t.Errorf("%s: exit %d, stdout %q, stderr %s", c.args, r.exit, r.stdout, r.stderr)
		}
	}
	if r := s.run("version"); r.stdout != "porter "+porter.Version+"\n" {
		t.Errorf("version: %q", r.stdout)
	}
}

func TestUngranted(t *testing.T) {
	s := newStation(t)
	s.app(s.ref("acme/app:1"))
	delete(s.granted, hostabi.StateWrite)
	r := s.run("pull", s.ref("acme/app:1"))
	if r.exit != 0 || !strings.HasPrefix(r.stderr, "warning: "+s.ref("acme/app:1")+" will be missing in the list: ") {
		t.Errorf("without state.write: exit %d, %s", r.exit, r.stderr)
	}
	s.granted = map[hostabi.Capability]sandbox.Scopes{}
	for _, args := range [][]string{{"pull", s.ref("acme/app:1")}, {"inspect", s.ref("acme/app:1")}, {"copy", s.ref("acme/app:1"), s.ref("acme/app:2")}} {
		r := s.run(args...)
		if r.exit != 5 || !strings.Contains(r.stderr, "hint   ds plugin grant porter registry.pull=args") {
			t.Errorf("%q: exit %d, %s", args, r.exit, r.stderr)
		}
	}
	if r := s.run("list"); r.exit != 5 || !strings.Contains(r.stderr, "state.read=own") {
		t.Errorf("list: exit %d, %s", r.exit, r.stderr)
	}
}
