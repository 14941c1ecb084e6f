package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/pkg/client"
	"github.com/delivery-station/ds/pkg/client/ocilayout"
)

// Types of the manifest that lists what a bundle holds beside artifacts.
const (
	mediaBundle     = "application/vnd.delivery-station.bundle.v1+json"
	mediaBundleLock = "application/vnd.delivery-station.bundle.lock.v1+yaml"
	maxLockFile     = 4 << 20
)

func bundleCommand() client.Command {
	return client.Command{
		Name: "bundle", Summary: "Artifacts in one file, for places without a network",
		Commands: []client.Command{{
			Name:    "create",
			Summary: "Write artifacts with all platforms and signatures into one tar",
			Help: "Writes an OCI layout in a tar: the artifacts with all their platforms, what refers to them, such as\n" +
				"signatures, and with --lock a lock file. ds plugin install FILE and ds plugin sync -f FILE read it as\n" +
				"they read a registry. The same artifacts give the same bytes.",
			Examples: []string{
				"ds porter bundle create -o plugins.tar ghcr.io/acme/s3:1.4.0",
				"ds porter bundle create -o plugins.tar --lock ds.lock ghcr.io/acme/s3:1.4.0",
			},
			Args: []client.Arg{{Name: "ref", Summary: "what to put into it", Type: "ref", Required: true, Repeat: true}},
			Flags: []client.Flag{
				{Name: "output", Short: "o", Type: "path", Mode: "write", Summary: "file to write"},
				{Name: "lock", Type: "path", Mode: "read", Summary: "lock file to add; what it pins must be named too"},
			},
			Run: createBundle,
		}},
	}
}

// layoutTar is what goes into a bundle.
type layoutTar struct {
	in    *client.Invocation
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
	t := &layoutTar{in: in, blobs: make(map[client.Digest]int64), own: make(map[client.Digest][]byte)}
	for _, ref := range in.Args {
		if err := t.add(ctx, ref); err != nil {
			return err
		}
	}
	if in.Changed("lock") {
		if err := t.lock(in.Value("lock")); err != nil {
			return err
		}
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
	return printResult(ctx, in, written, fmt.Sprintf("Wrote %s   %s, %s", written.Path, bytesText(size), sinceText(start)))
}

// add brings an artifact and what refers to it into the cache and lists them.
func (t *layoutTar) add(ctx context.Context, ref string) error {
	artifacts, err := t.in.Fetch(ctx, ref, client.AllPlatforms())
	if err != nil {
		return err
	}
	if len(artifacts) == 0 {
		return hostabi.Errorf(hostabi.ReasonRefNotFound, "%s names an index without artifacts", ref)
	}
	root := artifacts[0].Root
	repository, tag := cutRef(root.Ref)
	m, err := t.walk(ctx, root, maxDepth)
	if err != nil {
		return err
	}
	if v := m.Annotations["org.opencontainers.image.version"]; tag == "" && v != "" {
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
		if !isManifest(c.MediaType) || depth == 0 {
			return nil, hostabi.Errorf(hostabi.ReasonFeatureMissing, "%s lists %s of type %s, which a pull does not bring", d.Digest, c.Digest, c.MediaType)
		}
		if _, err := t.walk(ctx, client.Descriptor{MediaType: c.MediaType, Digest: c.Digest, Size: c.Size}, depth-1); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// cutRef is the repository and the tag of a canonical reference.
func cutRef(ref string) (repository, tag string) {
	repository, _, _ = strings.Cut(ref, "@")
	if i := strings.LastIndexByte(repository, ':'); i > strings.LastIndexByte(repository, '/') {
		return repository[:i], repository[i+1:]
	}
	return repository, ""
}

// lock adds a lock file as a manifest of its own. What it pins has to be in the bundle: a reference in a file is
// none that the user typed.
func (t *layoutTar) lock(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return hostError(name, err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxLockFile+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return hostError(name, err)
	}
	if len(text) > maxLockFile {
		return hostabi.Errorf(hostabi.ReasonTooLarge, "%s has more than %d bytes", name, maxLockFile)
	}
	source := ""
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "source":
			source = value
		case "index":
			if _, ok := t.blobs[client.Digest(value)]; !ok {
				return client.Usagef("%s pins %s@%s, which is not in the bundle; name it too", name, source, value)
			}
		}
	}
	empty := t.keep([]byte("{}"), mediaEmpty)
	layer := t.keep(text, mediaBundleLock)
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": ocilayout.MediaManifest, "artifactType": mediaBundle, "config": empty, "layers": []ocilayout.Entry{layer},
	})
	if err != nil {
		return err
	}
	d := t.keep(manifest, ocilayout.MediaManifest)
	d.ArtifactType = mediaBundle
	t.list = append(t.list, d)
	return nil
}

func (t *layoutTar) keep(text []byte, mediaType string) ocilayout.Entry {
	d := hostabi.DigestOf(text)
	t.own[d], t.blobs[d] = text, int64(len(text))
	return ocilayout.Entry{MediaType: mediaType, Digest: d, Size: int64(len(text))}
}

// save writes the tar; what cannot be finished is emptied, so that nobody takes it for a bundle.
func (t *layoutTar) save(ctx context.Context, name string) (size int64, err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644) //nolint:gosec // the user's own file, like any tool makes it
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Truncate(0))
		}
		err = errors.Join(err, f.Close())
	}()
	if err := t.write(ctx, f); err != nil {
		return 0, err
	}
	return f.Seek(0, io.SeekCurrent)
}

func (t *layoutTar) write(ctx context.Context, w io.Writer) error {
	return ocilayout.Write(ctx, w, t.list, t.blobs, func(d client.Digest) (io.ReadCloser, error) {
		if text, ok := t.own[d]; ok {
			return io.NopCloser(bytes.NewReader(text)), nil
		}
		return t.in.Cache().Open(ctx, d)
	})
}
