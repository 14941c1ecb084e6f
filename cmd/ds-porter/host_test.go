//go:build !wasip1

package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/delivery-station/ds/cache"
	porter "github.com/delivery-station/ds/cmd/ds-porter"
	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/host"
	"github.com/delivery-station/ds/hostabi/hostv1"
	"github.com/delivery-station/ds/internal/dstest"
	"github.com/delivery-station/ds/internal/state"
	"github.com/delivery-station/ds/internal/term"
	"github.com/delivery-station/ds/pkg/client"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/registry"
	"github.com/delivery-station/ds/sandbox"
)

// station is a ds without processes: the real host, gate, cache, registry client and state around porter,
// which runs in process. Paths are relative to dir, the working directory of the test.
type station struct {
	t        *testing.T
	dir      string
	manifest *plugin.Manifest
	cache    *cache.Store
	state    *state.Store
	client   *registry.Client
	server   *dstest.RegistryServer
	terminal hostabi.Terminal // what porter is told
	granted  map[hostabi.Capability]sandbox.Scopes
}

func newStation(t *testing.T) *station {
	t.Helper()
	s := &station{t: t, dir: t.TempDir(), manifest: manifest(t), granted: make(map[hostabi.Capability]sandbox.Scopes)}
	t.Chdir(s.dir)
	var err error
	if s.cache, err = cache.Open(t.Context(), cache.Options{Dir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.cache.Close(); err != nil {
			t.Error(err)
		}
	})
	s.state = state.Open(state.Options{Dir: t.TempDir()})
	s.server = dstest.Registry(t, dstest.RegistryOptions{})
	if s.client, err = registry.New(registry.Options{Dir: s.dir}); err != nil {
		t.Fatal(err)
	}
	for _, r := range s.manifest.Capabilities {
		g := s.granted[r.Cap]
		g.Scope = append(g.Scope, r.Scope...)
		g.Quota = max(g.Quota, r.Quota)
		s.granted[r.Cap] = g
	}
	return s
}

// ref names something in the test registry.
func (s *station) ref(path string) string { return s.server.Host + "/" + path }

type result struct {
	exit           int
	stdout, stderr string
}

// run is one ds porter ARGS.
func (s *station) run(args ...string) result {
	s.t.Helper()
	var out, errs bytes.Buffer
	terminal := term.New(term.Options{Stdout: &out, Stderr: &errs})
	defer terminal.Close()
	p := &plugin.Installed{Name: s.manifest.Name, Version: s.manifest.Version, Manifest: s.manifest, Program: &plugin.Program{Kind: plugin.Native}}
	inv := &plugin.Invocation{
		ID: strings.Repeat("0", 32), Args: args, Kind: plugin.KindRun, Stdout: &out, Stderr: &errs, Dir: s.dir, Terminal: s.terminal, NoInput: true,
	}
	inv.Command, inv.Typed = s.manifest.Parse(args)
	box, err := sandbox.NewBox(sandbox.BoxOptions{Plugin: p, Invocation: inv, Granted: s.granted, Canonical: s.client.Canonical})
	if err != nil {
		s.t.Fatal(err)
	}
	session, err := s.registrar(terminal).Open(p, box, inv)
	if err != nil {
		s.t.Fatal(err)
	}
	exit := porter.App().Run(s.t.Context(), client.Stdio{Out: &out, Err: &errs}, session, args...)
	if err := session.Close(); err != nil {
		s.t.Error(err)
	}
	return result{exit, out.String(), errs.String()}
}

func (s *station) registrar(t *term.Terminal) *host.Registrar {
	r := host.New(host.Options{
		Version: "0.0.0",
		Cache: func(owner hostabi.PluginName, source string) (host.Cache, error) {
			return s.cache.View(owner, source), nil
		},
		Puller: func() (host.Puller, error) { return s.client, nil },
	})
	hostv1.RegisterMetaServer(r, host.NewMeta())
	hostv1.RegisterCacheServer(r, host.NewCache())
	hostv1.RegisterRegistryServer(r, host.NewRegistry(func() (host.Pusher, error) { return s.client, nil }))
	hostv1.RegisterStateServer(r, host.NewState(func() (host.State, error) { return s.state, nil }))
	hostv1.RegisterTermServer(r, host.NewTerm(t))
	return r
}

// document is run for a command that must succeed; what it prints is decoded.
func document[T any](s *station, args ...string) (v T) {
	s.t.Helper()
	r := s.run(args...)
	if r.exit != 0 || r.stderr != "" {
		s.t.Fatalf("porter %s: exit %d\n%s", strings.Join(args, " "), r.exit, r.stderr)
	}
	if err := json.Unmarshal([]byte(r.stdout), &v); err != nil {
		s.t.Fatalf("porter %s: %v in %s", strings.Join(args, " "), err, r.stdout)
	}
	return v
}

func (s *station) write(name, content string) {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// tree is the files below a directory with their content.
func (s *station) tree(dir string) map[string]string {
	s.t.Helper()
	out := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		out[filepath.ToSlash(path)] = string(b)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// publish pushes an artifact that porter itself would not make, as somebody else.
func (s *station) publish(ref string, index any, manifests []any, blobs ...string) hostabi.Digest {
	s.t.Helper()
	content := make(map[hostabi.Digest][]byte)
	var root hostabi.Descriptor
	for _, b := range blobs {
		content[hostabi.DigestOf([]byte(b))] = []byte(b)
	}
	for _, m := range append(manifests, index) {
		if m == nil {
			continue
		}
		b, err := json.Marshal(m)
		if err != nil {
			s.t.Fatal(err)
		}
		root = hostabi.Descriptor{Digest: hostabi.DigestOf(b), Size: int64(len(b)), MediaType: m.(map[string]any)["mediaType"].(string)}
		content[root.Digest] = b
	}
	err := s.client.Push(s.t.Context(), ref, root, func(_ context.Context, d hostabi.Digest) (io.ReadSeekCloser, error) {
		return nopCloser{bytes.NewReader(content[d])}, nil
	}, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return root.Digest
}

type nopCloser struct{ *bytes.Reader }

func (nopCloser) Close() error { return nil }
