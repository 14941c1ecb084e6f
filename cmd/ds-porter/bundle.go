package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/pkg/client"
	"github.com/delivery-station/ds/pkg/client/ocilayout"
)

// Types of the manifest that says what a bundle holds beside artifacts.
const (
	mediaBundle     = "application/vnd.delivery-station.bundle.v1+json"
	mediaBundleLock = "application/vnd.delivery-station.bundle.lock.v1+yaml"
	mediaBundleKeys = "application/vnd.delivery-station.bundle.keys.v1+pem"
	platformsKey    = "delivery-station.io/bundle.platforms" // those that create was told, separated by commas
	versionKey      = "org.opencontainers.image.version"
	maxLockFile     = 4 << 20
	maxKeyFile      = 64 << 10
)

func bundleCommand() client.Command {
	return client.Command{
		Name: "bundle", Summary: "Artifacts in one file, for places without a network",
		Commands: []client.Command{{
			Name:    "create",
			Summary: "Write artifacts with all platforms and signatures into one tar",
			Help: "Writes an OCI layout in a tar: the artifacts with all their platforms, what refers to them, such as\n" +
				"signatures, and with --lock a lock file. ds plugin install FILE and ds plugin sync -f FILE read it as\n" +
				"they read a registry. The same artifacts give the same bytes. Keys in a bundle are shown to whoever\n" +
				"reads it; that a bundle holds a key makes nobody trust it.",
			Examples: []string{
				"ds porter bundle create -o plugins.tar ghcr.io/acme/s3:1.4.0",
				"ds porter bundle create -o plugins.tar --lock ds.lock --key acme.pem ghcr.io/acme/s3:1.4.0",
			},
			Args: []client.Arg{{Name: "ref", Summary: "what to put into it", Type: "ref", Required: true, Repeat: true}},
			Flags: []client.Flag{
				{Name: "output", Short: "o", Type: "path", Mode: "write", Summary: "file to write"},
				{Name: "lock", Type: "path", Mode: "read", Summary: "lock file to add; what it pins must be named too"},
				{Name: "key", Type: "path", Mode: "read", Repeat: true, Summary: "file of public keys to add, PEM"},
				{Name: "platform", Type: "string", Repeat: true, Summary: "platform to take, OS/ARCH (default: all)"},
			},
			Run: createBundle,
		}, inspectBundleCommand(), verifyBundleCommand(), loadBundleCommand()},
	}
}

// layoutTar is what goes into a bundle.
type layoutTar struct {
	in    *client.Invocation
	only  []string          // platforms; none = all
	list  []ocilayout.Entry // index.json
	blobs map[client.Digest]int64
	own   map[client.Digest][]byte // content that is in no cache
}

func createBundle(ctx context.Context, in *client.Invocation) error {
	start := time.Now()
	name := in.Value("output")
	if name == "" {
		return client.Usagef("--output FILE.tar says where to write")
	}
	only, err := platformsOf(in.Values("platform"))
	if err != nil {
		return err
	}
	t := &layoutTar{in: in, only: only, blobs: make(map[client.Digest]int64), own: make(map[client.Digest][]byte)}
	for _, ref := range in.Args {
		if err := t.add(ctx, ref); err != nil {
			return err
		}
	}
	if err := t.extras(in.Value("lock"), in.Values("key")); err != nil {
		return err
	}
	size, err := t.save(ctx, name)
	if err != nil {
		return hostError(name, err)
	}
	host, err := in.Describe(ctx)
	if err != nil {
		return err
	}
	written := struct {
		Path      string `json:"path" ds:"PATH"`
		Artifacts int    `json:"artifacts" ds:"ARTIFACTS"`
		Size      int64  `json:"size" ds:"SIZE"`
	}{typed(host, name), len(in.Args), size}
	return printResult(ctx, in, written, fmt.Sprintf("Wrote %s   %s, %s", written.Path, hostabi.SizeText(size), sinceText(start)))
}

// add brings an artifact and what refers to it into the cache and lists them.
func (t *layoutTar) add(ctx context.Context, ref string) error {
	opts := []client.RefOption{client.AllPlatforms()}
	if len(t.only) > 0 {
		opts = append(opts, client.ManifestsOnly())
	}
	artifacts, err := t.in.Fetch(ctx, ref, opts...)
	if err != nil {
		return err
	}
	if len(artifacts) == 0 {
		return hostabi.Errorf(hostabi.ReasonRefNotFound, "%s names an index without artifacts", ref)
	}
	root := artifacts[0].Root
	repository, tag := cutRef(root.Ref)
	if err := t.wanted(ctx, repository, artifacts); err != nil {
		return err
	}
	m, err := t.walk(ctx, root, maxDepth)
	if err != nil {
		return err
	}
	if v := m.Annotations[versionKey]; tag == "" && v != "" {
		tag = strings.ReplaceAll(v, "+", "_")
	}
	if tag == "" {
		return client.Usagef("%s has no version; name a tag", ref)
	}
	t.enlist(root, m.ArtifactType, map[string]string{ocilayout.RefName: repository + ":" + tag})
	for d, err := range t.in.Referrers(ctx, repository+"@"+string(root.Digest), "") {
		if err != nil {
			return err
		}
		if err := t.referrer(ctx, repository, d); err != nil {
			return err
		}
	}
	return nil
}

// referrer brings a signature or another document about an artifact.
func (t *layoutTar) referrer(ctx context.Context, repository string, d client.Descriptor) error {
	if _, err := t.in.Fetch(ctx, repository+"@"+string(d.Digest), client.AllPlatforms()); err != nil {
		return err
	}
	m, err := t.walk(ctx, d, maxDepth)
	if err == nil {
		t.enlist(d, m.ArtifactType, m.Annotations)
	}
	return err
}

func (t *layoutTar) enlist(d client.Descriptor, artifactType string, annotations map[string]string) {
	same := func(l ocilayout.Entry) bool {
		return l.Digest == d.Digest && l.Annotations[ocilayout.RefName] == annotations[ocilayout.RefName]
	}
	if !slices.ContainsFunc(t.list, same) {
		t.list = append(t.list, ocilayout.Entry{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, ArtifactType: artifactType, Annotations: annotations})
	}
}

// walk notes every blob of the graph below d.
func (t *layoutTar) walk(ctx context.Context, d client.Descriptor, depth int) (*ociManifest, error) {
	if len(t.blobs) > maxManifests {
		return nil, hostabi.Errorf(hostabi.ReasonTooLarge, "a bundle holds at most %d blobs", maxManifests)
	}
	b, err := readBlob(ctx, t.in, d.Digest)
	if err != nil {
		return nil, err
	}
	t.blobs[d.Digest] = int64(len(b))
	m := new(ociManifest)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, hostabi.Errorf(hostabi.ReasonBadAnswer, "manifest %s is no JSON: %w", d.Digest, err)
	}
	if m.Config != nil {
		t.blobs[m.Config.Digest] = m.Config.Size
	}
	for _, l := range m.Layers {
		t.blobs[l.Digest] = l.Size
	}
	for _, c := range m.Manifests {
		if !t.takes(&c) {
			continue
		}
		if !isManifest(c.MediaType) || depth == 0 {
			return nil, hostabi.Errorf(hostabi.ReasonFeatureMissing, "%s lists %s of type %s, which a pull does not bring", d.Digest, c.Digest, c.MediaType)
		}
		if _, err := t.walk(ctx, client.Descriptor{MediaType: c.MediaType, Digest: c.Digest, Size: c.Size}, depth-1); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// takes reports whether an entry of an index goes into the bundle: all that is for no platform does.
func (t *layoutTar) takes(d *ociDescriptor) bool {
	p := d.platform()
	return p == "" || len(t.only) == 0 || slices.Contains(t.only, p)
}

// wanted brings the layers of the wanted platforms of an artifact whose manifests are there.
func (t *layoutTar) wanted(ctx context.Context, repository string, artifacts []client.Artifact) error {
	if len(t.only) == 0 {
		return nil
	}
	index, err := t.walk(ctx, artifacts[0].Root, maxDepth)
	if err != nil {
		return err
	}
	skip, found := make(map[client.Digest]bool), len(index.Manifests) == 0
	for _, c := range index.Manifests {
		skip[c.Digest] = !t.takes(&c)
		found = found || !skip[c.Digest] && c.platform() != ""
	}
	if !found {
		return hostabi.Errorf(hostabi.ReasonRefNotFound, "%s has nothing for %s", repository, strings.Join(t.only, ", "))
	}
	for _, a := range artifacts {
		if skip[a.Manifest.Digest] {
			continue
		}
		if _, err := t.in.Fetch(ctx, repository+"@"+string(a.Manifest.Digest)); err != nil {
			return err
		}
	}
	return nil
}

// platformsOf checks values of --platform; all is every platform, as without the flag.
func platformsOf(values []string) ([]string, error) {
	var out []string
	for _, v := range values {
		switch v {
		case "all":
			return nil, nil
		case "wasm":
			v = "wasip1/wasm"
		}
		p, err := hostabi.ParsePlatform(v)
		if err != nil {
			return nil, err
		}
		out = append(out, p.String())
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// extras adds a manifest of its own for what is no artifact: lock file, keys, and which platforms were taken.
func (t *layoutTar) extras(lock string, keys []string) error {
	var layers []ocilayout.Entry
	if lock != "" {
		l, err := t.lock(lock)
		if err != nil {
			return err
		}
		layers = append(layers, l)
	}
	if len(keys) > 0 {
		l, err := t.keys(keys)
		if err != nil {
			return err
		}
		layers = append(layers, l)
	}
	var annotations map[string]string
	if len(t.only) > 0 {
		annotations = map[string]string{platformsKey: strings.Join(t.only, ",")}
	}
	if layers == nil && annotations == nil {
		return nil
	}
	empty := t.keep([]byte("{}"), mediaEmpty)
	if layers == nil {
		layers = append(layers, empty)
	}
	m := map[string]any{"schemaVersion": 2, "mediaType": ocilayout.MediaManifest, "artifactType": mediaBundle, "config": empty, "layers": layers}
	if annotations != nil {
		m["annotations"] = annotations
	}
	manifest, err := json.Marshal(m)
	if err != nil {
		return err
	}
	d := t.keep(manifest, ocilayout.MediaManifest)
	d.ArtifactType = mediaBundle
	t.list = append(t.list, d)
	return nil
}

// lock adds a lock file. What it pins has to be in the bundle: a reference in a file is none that the user typed.
func (t *layoutTar) lock(name string) (layer ocilayout.Entry, err error) {
	text, err := readFile(name, maxLockFile)
	if err != nil {
		return layer, err
	}
	for source, index := range pins(text) {
		if _, ok := t.blobs[index]; !ok {
			return layer, client.Usagef("%s pins %s@%s, which is not in the bundle; name it too", name, source, index)
		}
	}
	return t.keep(text, mediaBundleLock), nil
}

// pins yields what a lock file pins: the repository and the digest of each plugin.
func pins(lock []byte) iter.Seq2[string, client.Digest] {
	return func(yield func(string, client.Digest) bool) {
		source := ""
		for line := range strings.Lines(string(lock)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			switch key {
			case "source":
				source = value
			case "index":
				if !yield(source, client.Digest(value)) {
					return
				}
			}
		}
	}
}

// keys adds public keys. A private one is refused: bundles are handed around.
func (t *layoutTar) keys(names []string) (layer ocilayout.Entry, err error) {
	var all []byte
	for _, name := range names {
		text, err := readFile(name, maxKeyFile)
		if err != nil {
			return layer, err
		}
		keys, err := publicKeys(name, text)
		if err != nil {
			return layer, err
		}
		for _, k := range keys {
			all = append(all, k.PEM...)
		}
	}
	return t.keep(all, mediaBundleKeys), nil
}

func readFile(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, hostError(name, err)
	}
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, hostError(name, err)
	}
	if int64(len(text)) > limit {
		return nil, hostabi.Errorf(hostabi.ReasonTooLarge, "%s has more than %d bytes", name, limit)
	}
	return text, nil
}

func (t *layoutTar) keep(text []byte, mediaType string) ocilayout.Entry {
	d := hostabi.DigestOf(text)
	t.own[d], t.blobs[d] = text, int64(len(text))
	return ocilayout.Entry{MediaType: mediaType, Digest: d, Size: int64(len(text))}
}

func (t *layoutTar) save(ctx context.Context, name string) (size int64, err error) {
	return ocilayout.WriteFile(ctx, name, t.list, t.blobs, func(d client.Digest) (io.ReadCloser, error) {
		if text, ok := t.own[d]; ok {
			return io.NopCloser(bytes.NewReader(text)), nil
		}
		return t.in.Cache().Open(ctx, d)
	})
}
