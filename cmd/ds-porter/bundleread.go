package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/pkg/client"
	"github.com/delivery-station/ds/pkg/client/ocilayout"
)

func bundleFileArg() client.Arg {
	return client.Arg{Name: "file", Summary: "bundle, a tar", Type: "path", Mode: "read", Required: true}
}

func inspectBundleCommand() client.Command {
	return client.Command{
		Name:    "inspect",
		Summary: "Show what a bundle holds: artifacts, signatures, lock file, keys",
		Help: "Reads the lists of a bundle and the manifests they name. Keys are shown with their ids and nothing else:\n" +
			"compare an id with what the publisher says before ds trust add.",
		Examples: []string{"ds porter bundle inspect plugins.tar", "ds porter bundle inspect plugins.tar --keys >acme.pem"},
		Args:     []client.Arg{bundleFileArg()},
		Flags:    []client.Flag{{Name: "keys", Type: "bool", Summary: "print the keys only, PEM"}},
		Run:      inspectBundle,
	}
}

func verifyBundleCommand() client.Command {
	return client.Command{
		Name:    "verify",
		Summary: "Compare every byte of a bundle with the digests it names",
		Help: "Every blob has the digest of its name, and whatever a manifest or the lock file names is there. Whose\n" +
			"signatures count is for ds to say, not for porter: ds plugin verify FILE.tar:NAME.",
		Examples: []string{"ds porter bundle verify plugins.tar"},
		Args:     []client.Arg{bundleFileArg()},
		Run:      verifyBundle,
	}
}

// bundleInfo is what a bundle holds.
type bundleInfo struct {
	Path      string           `json:"path" ds:"PATH"`
	Artifacts []bundleArtifact `json:"artifacts"`
	Platforms []string         `json:"platforms,omitempty"` // taken of each artifact; none = all
	Locked    []string         `json:"locked,omitempty"`    // what the lock file pins, REPOSITORY@DIGEST
	Keys      []bundleKey      `json:"keys,omitempty"`
	Blobs     int              `json:"blobs" ds:"BLOBS"`
	Total     int64            `json:"size" ds:"SIZE"`
	Verified  bool             `json:"verified" ds:"VERIFIED"`
	Problems  []string         `json:"problems,omitempty"`
}

// bundleArtifact is one artifact of a bundle.
type bundleArtifact struct {
	Reference    string        `json:"reference"`
	Digest       client.Digest `json:"digest"`
	ArtifactType string        `json:"artifact_type,omitempty"`
	Platforms    []string      `json:"platforms,omitempty"`
	Size         int64         `json:"size"` // bytes of the layers in the bundle, each counted once
	Signatures   int           `json:"signatures"`
	Referrers    []blob        `json:"referrers,omitempty"`

	nodes []node
}

// bundle is an open bundle with its lists read.
type bundle struct {
	*layout
	bundleInfo
	referrers map[client.Digest][]node // by subject
}

// openBundle opens the bundle that the user typed as the argument file.
func openBundle(ctx context.Context, in *client.Invocation) (*bundle, error) {
	host, err := in.Describe(ctx)
	if err != nil {
		return nil, err
	}
	return readBundle(in.Args[0], typed(host, in.Args[0]))
}

// readBundle opens the bundle at file, which the user calls name.
func readBundle(file, name string) (*bundle, error) {
	l, err := openLayout(file, name)
	if err != nil {
		return nil, err
	}
	b := &bundle{layout: l, referrers: make(map[client.Digest][]node)}
	b.Path = name
	if err := b.lists(); err != nil {
		l.close()
		return nil, err
	}
	return b, nil
}

func (b *bundle) lists() error {
	for _, d := range b.Digests() {
		size, _ := b.Size(d)
		b.Blobs, b.Total = b.Blobs+1, b.Total+size
	}
	for _, d := range b.Entries() {
		nodes, err := b.graph(d)
		if err != nil {
			return err
		}
		root := nodes[len(nodes)-1]
		switch ref := d.Annotations[ocilayout.RefName]; {
		case ref != "":
			b.Artifacts = append(b.Artifacts, bundleArtifact{Reference: ref, Digest: d.Digest, ArtifactType: root.ociManifest.ArtifactType, nodes: nodes})
		case root.ociManifest.ArtifactType == mediaBundle:
			if err := b.extras(root.ociManifest); err != nil {
				return err
			}
		case root.Subject != nil:
			b.referrers[root.Subject.Digest] = append(b.referrers[root.Subject.Digest], root)
		}
	}
	for i := range b.Artifacts {
		b.describe(&b.Artifacts[i])
	}
	return nil
}

// extras reads what a bundle holds beside artifacts.
func (b *bundle) extras(m *ociManifest) error {
	if p := m.Annotations[platformsKey]; p != "" {
		b.Platforms = strings.Split(p, ",")
	}
	for _, l := range m.Layers {
		if l.MediaType != mediaBundleLock && l.MediaType != mediaBundleKeys {
			continue
		}
		text, err := b.Content(l.Digest, maxLockFile)
		if err != nil {
			return err
		}
		if l.MediaType == mediaBundleLock {
			for source, index := range pins(text) {
				b.Locked = append(b.Locked, source+"@"+string(index))
			}
			continue
		}
		keys, err := publicKeys(b.name, text)
		if err != nil {
			return badLayout("%s: the keys are broken: %w", b.name, err)
		}
		b.Keys = append(b.Keys, keys...)
	}
	return nil
}

// describe fills in what follows from the manifests of a.
func (b *bundle) describe(a *bundleArtifact) {
	seen := make(map[client.Digest]bool)
	for _, n := range a.nodes {
		for _, l := range n.Layers {
			if !seen[l.Digest] && b.has(l.Digest) {
				seen[l.Digest] = true
				a.Size += l.Size
			}
		}
		for _, c := range n.Manifests {
			if p := c.platform(); p != "" && b.has(c.Digest) && !slices.Contains(a.Platforms, p) {
				a.Platforms = append(a.Platforms, p)
			}
		}
	}
	for _, r := range b.referrers[a.Digest] {
		d := r.ociDescriptor
		d.MediaType = r.ociManifest.ArtifactType
		a.Referrers = append(a.Referrers, blob{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size})
		if strings.HasPrefix(d.MediaType, "application/vnd.dev.sigstore.bundle.") {
			a.Signatures++
		}
	}
}

func inspectBundle(ctx context.Context, in *client.Invocation) error {
	b, err := openBundle(ctx, in)
	if err != nil {
		return err
	}
	defer b.close()
	if !in.Bool("keys") {
		return printRows(ctx, in, b.bundleInfo)
	}
	for _, k := range b.Keys {
		if _, err := io.WriteString(in.Stdout, k.PEM); err != nil {
			return err
		}
	}
	return nil
}

func verifyBundle(ctx context.Context, in *client.Invocation) error {
	start := time.Now()
	b, err := openBundle(ctx, in)
	if err != nil {
		return err
	}
	defer b.close()
	if err := b.verify(ctx); err != nil {
		return err
	}
	b.Verified = len(b.Problems) == 0
	line := fmt.Sprintf("Verified %s   %s in %d blobs, %s", b.Path, hostabi.SizeText(b.Total), b.Blobs, sinceText(start))
	if !b.Verified {
		line = strings.Join(b.Problems, "\n")
	}
	if err := printResult(ctx, in, b.bundleInfo, line); err != nil || b.Verified {
		return err
	}
	return badLayout("%s is broken: %s", b.Path, b.Problems[0])
}

func (b *bundle) problem(format string, a ...any) {
	b.Problems = append(b.Problems, fmt.Sprintf(format, a...))
}

// verify looks for everything that is wrong; its error is only that it could not look.
func (b *bundle) verify(ctx context.Context) error {
	for _, d := range b.Digests() {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r, err := b.Blob(d)
		if err != nil {
			return err
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, r); err != nil {
			return hostError(b.name, err)
		}
		if got := hostabi.DigestFromSum(sum.Sum(nil)); got != d {
			b.problem("blob %s has the content of %s", d, got)
		}
	}
	for _, d := range b.Entries() {
		if err := b.complete(d); err != nil {
			return err
		}
	}
	for subject := range b.referrers {
		if !b.has(subject) {
			b.problem("what refers to %s is there without it", subject)
		}
	}
	for _, a := range b.Artifacts {
		if repository, tag := cutRef(a.Reference); tag == "" || !strings.Contains(repository, "/") {
			b.problem("%s is listed as %q, want REPOSITORY:VERSION", a.Digest, a.Reference)
		}
	}
	for _, pin := range b.Locked {
		_, index, _ := strings.Cut(pin, "@")
		if !slices.ContainsFunc(b.Entries(), func(d ocilayout.Entry) bool { return string(d.Digest) == index }) {
			b.problem("the lock file pins %s, which is not there", pin)
		}
	}
	return nil
}

// complete notes what the graph below root names and the tar does not hold, or holds in another size.
func (b *bundle) complete(root ocilayout.Entry) error {
	nodes, err := b.graph(root)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		b.holds(n.ociDescriptor)
		for _, d := range n.blobs() {
			b.holds(d)
		}
		for _, c := range n.Manifests {
			if p := c.platform(); p == "" || len(b.Platforms) == 0 || slices.Contains(b.Platforms, p) {
				b.holds(c)
			}
		}
	}
	return nil
}

func (b *bundle) holds(d ociDescriptor) {
	size, ok := b.Size(d.Digest)
	switch {
	case !ok:
		b.problem("blob %.100s is missing", d.Digest)
	case size != d.Size:
		b.problem("blob %s has %d bytes, listed with %d", d.Digest, size, d.Size)
	}
}
