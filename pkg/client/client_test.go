package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1lite"
	"github.com/delivery-station/ds/pkg/client"
)

func TestNoHost(t *testing.T) {
	t.Setenv("DS_HOST_FD", "")
	c, err := client.NewClient()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Describe(t.Context()); !errors.Is(err, client.ErrNoHost) {
		t.Errorf("call without a host: %v", err)
	}
	c.Progress("x", 1).Done(nil) // never fails
	c.Logger().Info("lost")
	if err := c.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if _, err := c.Session(); errors.Is(err, client.ErrNoHost) || err == nil {
		t.Errorf("session after close: %v", err)
	}
}

func TestDescribe(t *testing.T) {
	w := newWorld(t)
	d, err := w.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d.ABI != hostabi.ABI || d.Version != "0.0.0-kit" || d.Invocation.Plugin != "kit" || d.Invocation.Version != "1.2.3" ||
		d.Limits.MessageBytes != hostabi.MaxMessage || d.Limits.Streams != hostabi.MaxStreams {
		t.Errorf("%+v", d)
	}
	if !d.Has("ds.host.v1.Config/Get") || d.Has("ds.host.v1.Config/Bake") {
		t.Errorf("methods %v", d.Methods)
	}
	if !slices.ContainsFunc(d.Grants, func(g hostabi.Grant) bool { return g.Cap == hostabi.CacheWrite && g.Quota == 1<<20 }) {
		t.Errorf("grants %+v", d.Grants)
	}
}

func TestConfig(t *testing.T) {
	type settings struct {
		Greeting string
		List     struct {
			A int
			B []int
		}
		Open struct {
			Name  string
			Token string
			Extra string
		}
	}
	for name, c := range map[string]struct {
		over  any
		check func(s settings) bool
	}{
		"host": {nil, func(s settings) bool {
			return s.Greeting == "hello" && s.List.A == 1 && s.List.B[0] == 2 && s.Open.Name == "n" && s.Open.Token == ""
		}},
		"map laid over": {map[string]any{"greeting": "hi", "open": map[string]string{"extra": "e"}}, func(s settings) bool {
			return s.Greeting == "hi" && s.Open.Name == "n" && s.Open.Extra == "e" && s.List.A == 1
		}},
		"struct laid over": {struct {
			List struct{ A int } `json:"list"`
		}{struct{ A int }{7}}, func(s settings) bool { return s.Greeting == "hello" && s.List.B[0] == 2 }},
	} {
		t.Run(name, func(t *testing.T) {
			var opts []client.Option
			if c.over != nil {
				opts = append(opts, client.WithConfig(c.over))
			}
			w := newWorld(t, opts...)
			w.script(t, hostv1lite.ConfigList, func([]byte) hostv1lite.Message {
				return &hostv1lite.ConfigTree{Values: []hostv1lite.ConfigValue{
					{Key: "settings.kit.greeting", Json: `"hello"`},
					{Key: "settings.kit.list.a", Json: "1"},
					{Key: "settings.kit.list.b", Json: "[2]"},
					{Key: "settings.kit.open.name", Json: `"n"`},
					{Key: "settings.kit.open.token", Secret: true},
				}}
			})
			var s settings
			if err := w.Config(t.Context(), &s); err != nil {
				t.Fatal(err)
			}
			if !c.check(s) {
				t.Errorf("%+v", s)
			}
			var wrong struct{ Greeting int }
			if err := w.Config(t.Context(), &wrong); !errors.Is(err, client.ErrInvalid) || hostabi.ReasonOf(err) != hostabi.ReasonConfigValue {
				t.Errorf("wrong type: %v", err)
			}
		})
	}
}

func TestConfigWithoutHost(t *testing.T) {
	t.Setenv("DS_HOST_FD", "")
	t.Setenv("DS_PLUGIN", "kit")
	c, err := client.NewClient(client.WithConfig(map[string]any{"greeting": "hi", "deep": map[string]any{"n": 3}}))
	if err != nil {
		t.Fatal(err)
	}
	var s struct{ Greeting string }
	if err := c.Config(t.Context(), &s); err != nil || s.Greeting != "hi" {
		t.Errorf("%+v, %v", s, err)
	}
	var n int
	if err := c.ConfigValue(t.Context(), "settings.kit.deep.n", &n); err != nil || n != 3 {
		t.Errorf("%d, %v", n, err)
	}
	if err := c.ConfigValue(t.Context(), "settings.kit.deep.m", &n); !errors.Is(err, client.ErrNoHost) {
		t.Errorf("a value that is not laid over: %v", err)
	}
}

func TestConfigValues(t *testing.T) {
	w := newWorld(t)
	var s string
	if err := w.ConfigValue(t.Context(), "settings.kit.greeting", &s); err != nil || s != "hello" {
		t.Errorf("%q, %v", s, err)
	}
	if s, err := w.Secret(t.Context(), "settings.kit.open.token"); err != nil || s != "s3cret" {
		t.Errorf("secret %q, %v", s, err)
	}
	for key, want := range map[string]error{
		"settings.kit.locked.password": client.ErrDenied,
		"settings.other.greeting":      client.ErrDenied,
		"settings.kit.absent":          client.ErrNotFound,
		"..":                           client.ErrInvalid,
	} {
		_, err := w.Secret(t.Context(), key)
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", key, err, want)
		}
		if e := hostabi.AsError(err); errors.Is(want, client.ErrDenied) && e.Meta["capability"] == "" {
			t.Errorf("%s: denial without capability: %+v", key, e)
		}
	}
}

func TestState(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	rev, err := w.SetState(ctx, "a/1", []byte("one"), client.IfRevision(0))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.SetState(ctx, "a/1", nil, client.IfRevision(0)); !errors.Is(err, client.ErrConflict) {
		t.Errorf("create twice: %v", err)
	}
	if rev2, err := w.SetState(ctx, "a/1", []byte("two"), client.IfRevision(rev), client.WithTTL(time.Hour)); err != nil || rev2 <= rev {
		t.Errorf("revision %d after %d, %v", rev2, rev, err)
	}
	e, err := w.GetState(ctx, "a/1")
	if err != nil || string(e.Value) != "two" || e.Owner != "kit" || e.Expires.IsZero() {
		t.Errorf("%+v, %v", e, err)
	}
	if _, err := client.SetJSON(ctx, w.Client, "a/2", map[string]int{"n": 5}); err != nil {
		t.Fatal(err)
	}
	v, _, err := client.GetJSON[map[string]int](ctx, w.Client, "a/2")
	if err != nil || v["n"] != 5 {
		t.Errorf("%v, %v", v, err)
	}
	if _, _, err := client.GetJSON[int](ctx, w.Client, "a/2"); !errors.Is(err, client.ErrInvalid) {
		t.Errorf("other type: %v", err)
	}
	var keys []string
	for e, err := range w.ListState(ctx, "a/") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, e.Key)
	}
	if !slices.Equal(keys, []string{"a/1", "a/2"}) {
		t.Errorf("keys %v", keys)
	}
	for range w.ListState(ctx, "a/") {
		break // the stream ends with the loop
	}
	if err := w.DeleteState(ctx, "a/1"); err != nil {
		t.Error(err)
	}
	if _, err := w.GetState(ctx, "a/1"); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("deleted: %v", err)
	}
	for _, err := range w.ListState(ctx, "", client.WithOwner("other")) {
		if err != nil && !errors.Is(err, client.ErrDenied) {
			t.Errorf("foreign: %v", err)
		}
	}
}

func TestCache(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	content := bytes.Repeat([]byte("0123456789"), 20_000)
	d := hostabi.DigestOf(content)
	if _, err := w.Cache().Stat(ctx, d); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("absent: %v", err)
	}
	info, err := w.Cache().Put(ctx, bytes.NewReader(content), client.WithMediaType("text/x"), client.WithExpected(d, int64(len(content))))
	if err != nil || info.Digest != d || info.Size != int64(len(content)) || info.MediaType != "text/x" {
		t.Fatalf("%+v, %v", info, err)
	}
	b, err := w.Cache().Open(ctx, d)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes read, %v", len(got), err)
	}
	part := make([]byte, 5)
	if _, err := b.ReadAt(part, 10_003); err != nil || string(part) != "34567" {
		t.Errorf("ReadAt: %q, %v", part, err)
	}
	if _, err := b.Seek(-2, io.SeekEnd); err != nil {
		t.Error(err)
	}
	if rest, _ := io.ReadAll(b); string(rest) != "89" {
		t.Errorf("after Seek: %q", rest)
	}
	if direct, err := os.ReadFile(b.Path()); err != nil || !bytes.Equal(direct, content) {
		t.Errorf("path %q: %v", b.Path(), err)
	}
	if b.Info().Size != int64(len(content)) || b.Info().Digest != d {
		t.Errorf("info %+v", b.Info())
	}
	for range 2 {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := b.Read(part); !errors.Is(err, os.ErrClosed) {
		t.Errorf("read after close: %v", err)
	}
	if err := w.Cache().Pin(ctx, d, time.Hour); err != nil {
		t.Error(err)
	}
	var found []client.Digest
	for info, err := range w.Cache().List(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, info.Digest)
	}
	if !slices.Contains(found, d) {
		t.Errorf("listed %v", found)
	}
	for info := range w.Cache().List(ctx, client.WithSource("nobody/x")) {
		t.Errorf("listed from elsewhere: %v", info.Digest)
	}
}

func TestCacheWriters(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	other := hostabi.DigestOf([]byte("other"))
	if _, err := w.Cache().Put(ctx, strings.NewReader("content"), client.WithExpected(other, 0)); !errors.Is(err, client.ErrDigest) {
		t.Errorf("wrong digest: %v", err)
	}
	if _, err := w.Cache().Put(ctx, strings.NewReader("content"), client.WithExpected("", 3)); !errors.Is(err, client.ErrDigest) {
		t.Errorf("wrong size: %v", err)
	}
	if _, err := w.Cache().Put(ctx, io.MultiReader(strings.NewReader("x"), failing{})); !errors.Is(err, errFailing) {
		t.Errorf("source that fails: %v", err)
	}
	x, err := w.Cache().Create(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(x.Path(), []byte("by path"), 0o600); err != nil {
		t.Fatal(err)
	}
	if info, err := x.Commit(ctx); err != nil || info.Digest != hostabi.DigestOf([]byte("by path")) {
		t.Errorf("written by path: %+v, %v", info, err)
	}
	if _, err := x.Commit(ctx); !errors.Is(err, os.ErrClosed) {
		t.Errorf("second commit: %v", err)
	}
	if _, err := x.Write(nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("write after commit: %v", err)
	}
	y, err := w.Cache().Create(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := y.Write([]byte("given up")); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := y.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := w.Cache().Stat(ctx, hostabi.DigestOf([]byte("given up"))); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("given up, yet cached: %v", err)
	}
	if _, err := w.Cache().Put(ctx, io.LimitReader(zeros{}, 2<<20)); !errors.Is(err, client.ErrQuota) {
		t.Errorf("over quota: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

var errFailing = errors.New("failing")

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errFailing }

func text(s string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(s)), nil }
}

func TestRegistry(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	if err := w.Push(ctx, w.ref("one"), strings.NewReader("the layer"), "text/plain"); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := w.Pull(ctx, w.ref("one"), &out); err != nil || out.String() != "the layer" {
		t.Errorf("%q, %v", out.String(), err)
	}
	root, err := w.PushArtifact(ctx, w.ref("two"), client.Spec{
		ArtifactType: "application/x", Annotations: map[string]string{"a": "b"},
		Layers: []client.Content{{Title: "x.txt", MediaType: "text/plain", Open: text("x")}, {Title: "y.txt", Open: text("yy")}},
	}, client.WithTags("also"))
	if err != nil {
		t.Fatal(err)
	}
	artifacts, err := w.Fetch(ctx, w.ref("also"))
	if err != nil || len(artifacts) != 1 {
		t.Fatalf("%+v, %v", artifacts, err)
	}
	a := artifacts[0]
	if a.Root.Digest != root.Digest || a.Manifest.Digest != root.Digest || a.Manifest.ArtifactType != "application/x" || a.Annotations["a"] != "b" ||
		len(a.Layers) != 2 || a.Layers[1].Title != "y.txt" || a.Layers[1].Size != 2 || a.Ref != w.ref("also") || a.CachedBytes == 0 {
		t.Errorf("%+v", a)
	}
	if err := w.Pull(ctx, w.ref("two"), io.Discard); !errors.Is(err, client.ErrInvalid) || !strings.Contains(err.Error(), "x.txt, y.txt") {
		t.Errorf("several layers: %v", err)
	}
	out.Reset()
	if err := w.Pull(ctx, w.ref("two"), &out, client.WithLayer("y.txt")); err != nil || out.String() != "yy" {
		t.Errorf("%q, %v", out.String(), err)
	}
	if err := w.Pull(ctx, w.ref("two"), &out, client.WithLayer("z")); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("absent layer: %v", err)
	}
	if d, err := w.Resolve(ctx, w.ref("two")); err != nil || d.Digest != root.Digest {
		t.Errorf("%+v, %v", d, err)
	}
	if err := w.Tag(ctx, w.ref("two"), "moved"); err != nil {
		t.Error(err)
	}
	tags, err := w.List(ctx, w.Registry+"/out")
	slices.Sort(tags)
	if err != nil || !slices.Equal(tags, []string{"also", "moved", "one", "two"}) {
		t.Errorf("tags %v, %v", tags, err)
	}
	if d, err := w.Copy(ctx, w.ref("two"), w.ref("copy")); err != nil || d.Digest != root.Digest {
		t.Errorf("copy %+v, %v", d, err)
	}
	if _, err := w.PushArtifact(ctx, w.ref("ref"), client.Spec{ArtifactType: "application/sbom", Layers: []client.Content{{Open: text("s")}}, Subject: &root}); err != nil {
		t.Fatal(err)
	}
	var types []string
	for d, err := range w.Referrers(ctx, w.ref("two"), "") {
		if err != nil {
			t.Fatal(err)
		}
		types = append(types, d.ArtifactType)
	}
	if !slices.Equal(types, []string{"application/sbom"}) {
		t.Errorf("referrers %v", types)
	}
	for ref, want := range map[string]error{
		w.ref("absent"):                 client.ErrNotFound,
		w.Registry + "/secret:v1":       client.ErrDenied,
		"oci-layout:bad ref\x00:latest": client.ErrInvalid,
	} {
		if _, err := w.Fetch(ctx, ref); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", ref, err, want)
		}
	}
}

func TestPlatforms(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	child := func(arch string) client.Spec {
		return client.Spec{ArtifactType: "application/x", Platform: &client.Platform{OS: "linux", Architecture: arch}, Layers: []client.Content{{Title: "bin", Open: text("for " + arch)}}}
	}
	index, err := w.PushArtifact(ctx, w.ref("multi"), client.Spec{Children: []client.Spec{child("amd64"), child("arm64")}})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := w.Pull(ctx, w.ref("multi"), &out, client.WithPlatform("linux/arm64")); err != nil || out.String() != "for arm64" {
		t.Errorf("%q, %v", out.String(), err)
	}
	all, err := w.Fetch(ctx, w.ref("multi"), client.AllPlatforms())
	if err != nil || len(all) != 2 || all[0].Manifest.Platform.Architecture != "amd64" || all[0].Root.Digest != index.Digest {
		t.Errorf("%+v, %v", all, err)
	}
	if d, err := w.Copy(ctx, w.ref("multi"), w.ref("all")); err != nil || d.Digest != index.Digest {
		t.Errorf("copy of all: %+v, %v", d, err)
	}
	if d, err := w.Copy(ctx, w.ref("multi"), w.ref("arm"), client.WithPlatform("linux/arm64")); err != nil || len(all) == 2 && d.Digest != all[1].Manifest.Digest {
		t.Errorf("copy of one: %+v, %v", d, err)
	}
	if _, err := w.Fetch(ctx, w.ref("multi"), client.WithPlatform("linux")); !errors.Is(err, client.ErrInvalid) {
		t.Errorf("bad platform: %v", err)
	}
	for name, bad := range map[string]client.Spec{
		"index with layers":          {Children: []client.Spec{child("x")}, Layers: []client.Content{{Open: text("")}}},
		"content that names nothing": {Layers: []client.Content{{Title: "x"}}},
	} {
		if _, err := w.PushArtifact(ctx, w.ref("bad"), bad); !errors.Is(err, client.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := w.PushArtifact(ctx, w.ref("bad"), client.Spec{Layers: []client.Content{{Digest: hostabi.DigestOf([]byte("absent"))}}}); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("content that is not cached: %v", err)
	}
}

func TestCallPlugin(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	r, err := w.CallPlugin(ctx, "exit", []string{"with", "3"})
	e, ok := errors.AsType[*client.ExitError](err)
	if !ok || e.Code != 3 || r == nil || r.ExitCode != 3 || err.Error() != "exit status 3" {
		t.Errorf("%+v, %v", r, err)
	}
	in := strings.Repeat("line of input\n", 100_000)
	if r, err = w.CallPlugin(ctx, "cat", []string{"run"}, client.WithStdin(strings.NewReader(in))); err != nil || r.String() != in {
		t.Errorf("cat gave %d of %d bytes, %v", len(r.Stdout), len(in), err)
	}
	r, err = w.CallPlugin(ctx, "order", []string{"run"})
	if err != nil || string(r.Stdout) != "o0o1o2" || string(r.Stderr) != "e0e1e2" {
		t.Errorf("%+v, %v", r, err)
	}
	var out bytes.Buffer
	if r, err = w.CallPlugin(ctx, "order", []string{"run"}, client.WithOutput(&out, nil)); err != nil || out.String() != "o0o1o2" || len(r.Stdout)+len(r.Stderr) != 0 {
		t.Errorf("streamed %q, %+v, %v", out.String(), r, err)
	}
	if _, err := w.CallPlugin(ctx, "order", []string{"other"}); !errors.Is(err, client.ErrDenied) {
		t.Errorf("ungranted command: %v", err)
	}
	if _, err := w.CallPlugin(ctx, "absent", []string{"run"}); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("absent plugin: %v", err)
	}
	blob, err := w.Cache().Put(ctx, strings.NewReader("for the callee"))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := w.CallPlugin(ctx, "read", []string{"blob", string(blob.Digest)}, client.WithBlobs(blob.Digest)); err != nil || r.String() != "for the callee" {
		t.Errorf("delegated blob: %+v, %v", r, err)
	}
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if _, err := w.CallPlugin(short, "sleep", []string{"run"}); hostabi.ReasonOf(err) != hostabi.ReasonTimeout {
		t.Errorf("past the deadline: %v", err)
	}
	list, err := w.Plugins(ctx)
	if err != nil || len(list) != 1 || list[0].Name != "exit" || !slices.Equal(list[0].Commands, []string{"with"}) {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestEvents(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	if err := w.Publish(ctx, "kit.done", map[string]int{"n": 1}, client.WithAttribute("colour", "red")); err != nil {
		t.Error(err)
	}
	for topic, want := range map[string]error{"other.done": client.ErrDenied, "Bad Topic": client.ErrInvalid, "ds.x": client.ErrInvalid} {
		if err := w.Publish(ctx, topic, nil); !errors.Is(err, want) {
			t.Errorf("%s: %v", topic, err)
		}
	}
	if err := w.Publish(ctx, "kit.big", make([]byte, hostabi.MaxEventData+1)); !errors.Is(err, client.ErrQuota) {
		t.Errorf("large event: %v", err)
	}
	s, err := w.Subscribe(ctx, "flood.*")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.CallPlugin(ctx, "flood", []string{"wait", "flood.x"}); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	if _, err := s.Next(short); hostabi.ReasonOf(err) != hostabi.ReasonTimeout {
		t.Errorf("nothing there: %v", err)
	}
	if _, err := w.CallPlugin(ctx, "flood", []string{"flood.x", "20"}); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		e, err := s.Next(ctx)
		if err != nil || string(e.Data) != fmt.Sprintf(`{"n":%d}`, i+1) || e.Source != "/plugins/flood" {
			t.Fatalf("event %d: %+v, %v", i, e, err)
		}
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Next(ctx); err != io.EOF {
		t.Errorf("after Close: %v", err)
	}
	if s, err := w.Subscribe(ctx, "secret.*"); err == nil {
		if _, err := s.Next(ctx); !errors.Is(err, client.ErrDenied) {
			t.Errorf("ungranted topic: %v", err)
		}
	}
}

func TestTerm(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	if yes, err := w.Confirm(ctx, "yes or no", false); err != nil || !yes {
		t.Errorf("%t, %v", yes, err)
	}
	if yes, err := w.Confirm(ctx, "other", true); err != nil || !yes {
		t.Errorf("fallback: %t, %v", yes, err)
	}
	if _, err := w.Ask(ctx, "name", false); hostabi.ReasonOf(err) != hostabi.ReasonNoTerminal {
		t.Errorf("nobody there: %v", err)
	}
	if _, err := w.Ask(ctx, "password", true); !errors.Is(err, client.ErrDenied) {
		t.Errorf("ungranted: %v", err)
	}
}

func TestRows(t *testing.T) {
	type row struct {
		Name   string `json:"name" ds:"NAME"`
		Size   int    `json:"size" ds:"SIZE,wide"`
		Hidden bool   `json:"hidden"`
	}
	type inner struct {
		A int `json:"a"`
	}
	for name, c := range map[string]struct {
		values []any
		want   string
	}{
		"slice":        {[]any{[]row{{"a", 1, true}, {"b", 2, false}}}, `rows "" [name=NAME size=SIZE,wide] {"name":"a","size":1,"hidden":true} {"name":"b","size":2,"hidden":false}`},
		"pointers":     {[]any{[]*row{{"a", 1, true}}}, `rows "" [name=NAME size=SIZE,wide] {"name":"a","size":1,"hidden":true}`},
		"empty":        {[]any{[]row{}}, `rows "" [name=NAME size=SIZE,wide] `},
		"struct":       {[]any{&row{Name: "one"}}, `rows "" [name=NAME size=SIZE,wide] {"name":"one","size":0,"hidden":false}`},
		"without tags": {[]any{[]inner{{1}}}, `rows "" [a] {"a":1}`},
		"embedded": {[]any{[]struct {
			inner
			B int
		}{{inner{1}, 2}}}, `rows "" [a B] {"a":1,"B":2}`},
		"two calls": {[]any{[]row{{"a", 1, true}}, []row{{"b", 2, true}}}, `rows "" [name=NAME size=SIZE,wide] {"name":"a","size":1,"hidden":true} {"name":"b","size":2,"hidden":true}`},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			for _, v := range c.values {
				if err := w.Rows(v); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Error(err)
			}
			if got := strings.TrimSuffix(w.Stdout.String(), "\n"); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
	w := newWorld(t)
	for _, bad := range []any{3, "x", nil, []func(){nil}} {
		if err := w.Rows(bad); !errors.Is(err, client.ErrInvalid) {
			t.Errorf("%T: %v", bad, err)
		}
	}
}

func TestProgress(t *testing.T) {
	w := newWorld(t)
	p, q := w.Progress("down", 100), w.Progress("up", 0)
	for range 100 {
		p.Add(1)
	}
	if _, err := io.ReadAll(q.Reader(strings.NewReader("12345"))); err != nil {
		t.Error(err)
	}
	p.Done(nil)
	p.Add(7) // too late
	q.Done(errFailing)
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if err := w.session.Close(); err != nil {
		t.Error(err)
	}
	last := map[string]hostabi.Progress{}
	for _, r := range w.Terminal.Reports {
		last[r.Label] = r
	}
	if len(w.Terminal.Reports) > 10 {
		t.Errorf("%d reports for a moment's work", len(w.Terminal.Reports))
	}
	if p := last["down"]; p.Current != 100 || p.Total != 100 || p.State != "done" {
		t.Errorf("%+v", p)
	}
	if q := last["up"]; q.Current != 5 || q.State != "fail" {
		t.Errorf("%+v", q)
	}
}

func TestLogger(t *testing.T) {
	w := newWorld(t)
	log := w.Logger()
	if log != w.Logger() {
		t.Error("another logger each time")
	}
	log.With("a", 1).WithGroup("g").Warn("hello", "b", 2, slog.Group("h", "c", true))
	log.Info("long", "v", strings.Repeat("ä", hostabi.MaxLogRecord), "w", strings.Repeat("z", hostabi.MaxLogRecord))
	for i := range 250 {
		log.Debug("many", "i", i)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	lines := w.Log.Plugin()
	if len(lines) != 252 || !strings.Contains(lines[0], "WARN hello") {
		t.Fatalf("%d lines, first %q", len(lines), lines[0])
	}
	for _, want := range []string{"a=1", "g.b=2", "g.h.c=true"} {
		if !strings.Contains(lines[0], want) {
			t.Errorf("%q lacks %s", lines[0], want)
		}
	}
	own := slog.New(slog.DiscardHandler)
	if newWorld(t, client.WithLogger(own)).Logger() != own {
		t.Error("WithLogger was ignored")
	}
}

func TestCallTimeout(t *testing.T) {
	w := newWorld(t, client.WithCallTimeout(time.Nanosecond))
	if _, err := w.Describe(t.Context()); hostabi.ReasonOf(err) != hostabi.ReasonTimeout && hostabi.ReasonOf(err) != "" {
		t.Errorf("%v", err)
	}
}

func TestSentinels(t *testing.T) {
	for reason, want := range map[hostabi.Reason]error{
		hostabi.ReasonCapabilityDenied: client.ErrDenied, hostabi.ReasonPolicyDenied: client.ErrDenied, hostabi.ReasonCompletion: client.ErrDenied,
		hostabi.ReasonForbidden: client.ErrAuth, hostabi.ReasonAuthRequired: client.ErrAuth, hostabi.ReasonOffline: client.ErrOffline,
		hostabi.ReasonRegistryUnavailable: client.ErrUnavailable, hostabi.ReasonKeyNotFound: client.ErrNotFound, hostabi.ReasonGraphIncomplete: client.ErrNotFound,
		hostabi.ReasonExists: client.ErrExists, hostabi.ReasonStateConflict: client.ErrConflict, hostabi.ReasonBadDigest: client.ErrInvalid,
		hostabi.ReasonQuota: client.ErrQuota, hostabi.ReasonDigestMismatch: client.ErrDigest, hostabi.ReasonUnknownMethod: client.ErrUnsupported,
	} {
		c, err := client.NewClient(client.WithSession(failed{hostabi.Errorf(reason, "it failed")}))
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Describe(t.Context())
		if !errors.Is(err, want) || hostabi.ReasonOf(err) != reason || err.Error() != "it failed" {
			t.Errorf("%s: %v does not match %v", reason, err, want)
		}
		if errors.Is(err, client.ErrNoHost) {
			t.Errorf("%s matches ErrNoHost", reason)
		}
		if reason == hostabi.ReasonOffline && !errors.Is(err, client.ErrUnavailable) {
			t.Error("offline is not unavailable")
		}
	}
}

// failed is a session whose every call fails.
type failed struct{ err error }

func (f failed) Invoke(context.Context, hostabi.Call) ([]byte, error) { return nil, f.err }
func (f failed) Stream(context.Context, string, hostabi.Encoding) (hostabi.Stream, error) {
	return nil, f.err
}
func (f failed) Handle(uint32) (io.ReadWriteCloser, error) { return nil, f.err }
func (f failed) Close() error                              { return nil }

// TestBlobWithoutFile: where neither a descriptor nor the path can be had, the handle is enough.
func TestBlobWithoutFile(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	info, err := w.Cache().Put(ctx, strings.NewReader("0123456789"))
	if err != nil {
		t.Fatal(err)
	}
	w.script(t, hostv1lite.CacheOpen, func(req []byte) hostv1lite.Message {
		var o hostv1lite.OpenedBlob
		b, err := w.session.Invoke(ctx, hostabi.Call{Method: hostv1lite.CacheOpen, Req: req})
		if err == nil {
			err = o.ParseProto(b)
		}
		if err != nil {
			t.Error(err)
		}
		o.Path = "/absent/blob"
		return &o
	})
	b, err := w.Cache().Open(ctx, info.Digest)
	if err != nil {
		t.Fatal(err)
	}
	part := make([]byte, 3)
	if _, err := io.ReadFull(b, part); err != nil || string(part) != "012" || b.Path() != "" {
		t.Errorf("%q, %v, path %q", part, err, b.Path())
	}
	if _, err := b.ReadAt(part, 7); err != nil || string(part) != "789" {
		t.Errorf("ReadAt: %q, %v", part, err)
	}
	if rest, err := io.ReadAll(b); err != nil || string(rest) != "3456789" {
		t.Errorf("rest %q, %v", rest, err)
	}
	if _, err := b.Seek(1, io.SeekStart); err != nil {
		t.Error(err)
	}
	var out bytes.Buffer
	if _, err := b.WriteTo(&out); err != nil || out.String() != "123456789" {
		t.Errorf("%q, %v", out.String(), err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if _, err := b.Seek(0, io.SeekStart); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after close: %v", err)
	}
	if b, err = w.Cache().Open(ctx, info.Digest); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	if _, err := b.WriteTo(&out); err != nil || out.String() != "0123456789" {
		t.Errorf("in order: %q, %v", out.String(), err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}
