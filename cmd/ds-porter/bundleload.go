package main

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/pkg/client"
)

func loadBundleCommand() client.Command {
	return client.Command{
		Name:    "load",
		Summary: "Push the artifacts of a bundle to a registry or layout",
		Help: "Pushes what a bundle holds with the same digests, so lock files and signatures stay valid: blobs, the\n" +
			"artifact by its digest, what refers to it, and its tag last. A bundle of several repositories takes one\n" +
			"--to for each that is wanted; they are told apart by their last element. What is pushed is compared with\n" +
			"its digest; whose signature it has is asked where it is installed.",
		Examples: []string{
			"ds porter bundle load plugins.tar --to registry.example.com/tools/s3",
			"ds porter bundle load plugins.tar --to oci-layout:./mirror:1.4.0",
		},
		Args:  []client.Arg{bundleFileArg()},
		Flags: []client.Flag{{Name: "to", Type: "ref", Repeat: true, Summary: "where to push; without a tag it keeps that of the bundle"}},
		Run:   loadBundle,
	}
}

// load is one artifact and where it goes.
type load struct {
	*bundleArtifact
	repository, tag string
}

func loadBundle(ctx context.Context, in *client.Invocation) error {
	start := time.Now()
	b, err := openBundle(ctx, in)
	if err != nil {
		return err
	}
	defer b.close()
	loads, err := b.targets(in.Values("to"))
	if err != nil {
		return err
	}
	for _, l := range loads { // before the first byte moves
		if err := b.whole(l.bundleArtifact); err != nil {
			return err
		}
	}
	docs := make([]document, 0, len(loads))
	var size int64
	for _, l := range loads {
		doc, err := b.load(ctx, in, l)
		if err != nil {
			return err
		}
		docs, size = append(docs, doc), size+doc.Size
	}
	return printResult(ctx, in, docs, fmt.Sprintf("Pushed %s of %s   %s, %s", counted(len(docs), "artifact"), b.Path, hostabi.SizeText(size), sinceText(start)))
}

// targets says where which artifact goes. Nothing goes where the user did not say.
func (b *bundle) targets(to []string) ([]load, error) {
	byRepository := make(map[string][]*bundleArtifact)
	var repositories []string
	for i := range b.Artifacts {
		repository, _ := cutRef(b.Artifacts[i].Reference)
		if byRepository[repository] == nil {
			repositories = append(repositories, repository)
		}
		byRepository[repository] = append(byRepository[repository], &b.Artifacts[i])
	}
	switch {
	case len(repositories) == 0:
		return nil, client.Usagef("%s lists no artifacts", b.Path)
	case len(to) == 0:
		return nil, client.Usagef("--to REF says where to push; %s holds %s", b.Path, strings.Join(repositories, ", "))
	}
	var out []load
	taken := make(map[string]bool)
	for _, ref := range to {
		target, tag := cutRef(ref)
		fits := func(repository string) bool { return lastElement(repository) == lastElement(target) }
		if len(repositories) == 1 {
			fits = func(string) bool { return true }
		}
		from := slices.DeleteFunc(slices.Clone(repositories), func(r string) bool { return !fits(r) })
		if len(from) != 1 || taken[from[0]] && len(to) > 1 {
			return nil, client.Usagef("--to %s fits %d of the repositories %s; its last element says which", ref, len(from), strings.Join(repositories, ", "))
		}
		taken[from[0]] = true
		versions := byRepository[from[0]]
		if tag != "" && len(versions) > 1 {
			return nil, client.Usagef("--to %s has a tag, but %s has %d versions; leave it out", ref, from[0], len(versions))
		}
		for _, a := range versions {
			l := load{a, target, tag}
			if tag == "" {
				_, l.tag = cutRef(a.Reference)
			}
			out = append(out, l)
		}
	}
	return out, nil
}

// lastElement is the name of a repository without what stands before it, of a layout that of its file.
func lastElement(repository string) string {
	if dir, ok := strings.CutPrefix(repository, layoutPrefix); ok {
		return strings.TrimSuffix(path.Base(strings.ReplaceAll(dir, `\`, "/")), ".tar")
	}
	return path.Base(repository)
}

// whole refuses an artifact that a registry would refuse in the middle: one whose platforms were left out.
func (b *bundle) whole(a *bundleArtifact) error {
	for _, n := range a.nodes {
		for _, c := range n.Manifests {
			if isManifest(c.MediaType) && !b.has(c.Digest) {
				return badLayout("%s holds %s for %s only; a registry takes all its platforms or none", b.Path, a.Reference, strings.Join(a.Platforms, ", ")).
					WithFix("ds porter bundle create -o FILE.tar %s", a.Reference)
			}
		}
	}
	return nil
}

// load pushes one artifact: a reader of the registry never sees the tag before the signatures.
func (b *bundle) load(ctx context.Context, in *client.Invocation, l load) (document, error) {
	if err := b.keep(ctx, in, l.nodes); err != nil {
		return document{}, err
	}
	at := func(d client.Digest) string { return l.repository + "@" + string(d) }
	root, err := in.PushCached(ctx, at(l.Digest), l.Digest)
	if err != nil {
		return document{}, err
	}
	for level, depth := []client.Digest{l.Digest}, 0; len(level) > 0 && depth < maxDepth; depth++ {
		var next []client.Digest
		for _, subject := range level {
			for _, r := range b.referrers[subject] {
				if err := b.keep(ctx, in, []node{r}); err != nil {
					return document{}, err
				}
				if _, err := in.PushCached(ctx, at(r.Digest), r.Digest); err != nil {
					return document{}, err
				}
				next = append(next, r.Digest)
			}
		}
		level = next
	}
	if err := in.Tag(ctx, at(l.Digest), l.tag); err != nil {
		return document{}, err
	}
	repository, _ := cutRef(root.Ref) // canonical
	root.Ref = repository + ":" + l.tag
	return storedDocument(ctx, in, root, root.Ref)
}

// keep brings manifests and their blobs into the cache, which compares them with their digests.
func (b *bundle) keep(ctx context.Context, in *client.Invocation, nodes []node) error {
	for _, n := range nodes {
		for _, d := range append(n.blobs(), n.ociDescriptor) {
			r, err := b.Blob(d.Digest)
			if err != nil {
				return err
			}
			if r.Size() != d.Size {
				return hostabi.Errorf(hostabi.ReasonDigestMismatch, "%s: blob %s has %d bytes, listed with %d", b.Path, d.Digest, r.Size(), d.Size)
			}
			if _, err := in.Cache().Put(ctx, r, client.WithExpected(d.Digest, d.Size), client.WithMediaType(d.MediaType)); err != nil {
				return err
			}
		}
	}
	return nil
}
