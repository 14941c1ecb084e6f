package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/delivery-station/ds/hostabi"
)

type ociDescriptor = ocispec.Descriptor

// Media types of manifests. Schema 1 of docker has no descriptors and is refused.
const (
	mediaIndex          = ocispec.MediaTypeImageIndex
	mediaManifest       = ocispec.MediaTypeImageManifest
	mediaArtifact       = "application/vnd.oci.artifact.manifest.v1+json"
	mediaDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	mediaDockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// Limits of security.md section 8.
const (
	maxNesting  = 3
	maxChildren = 1000
	maxLayers   = 10_000
)

// manifest is what is read of a manifest or an index.
type manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType"`
	Config        *ociDescriptor    `json:"config"`
	Layers        []ociDescriptor   `json:"layers"`
	Blobs         []ociDescriptor   `json:"blobs"`
	Manifests     []ociDescriptor   `json:"manifests"`
	Subject       *ociDescriptor    `json:"subject"`
	Annotations   map[string]string `json:"annotations"`
}

// kind is the artifact type: the member, else the type of the configuration.
func (m *manifest) kind() string {
	if m.ArtifactType == "" && m.Config != nil {
		return m.Config.MediaType
	}
	return m.ArtifactType
}

func isIndex(mediaType string) bool { return mediaType == mediaIndex || mediaType == mediaDockerIndex }

func isManifest(mediaType string) bool {
	switch mediaType {
	case mediaIndex, mediaDockerIndex, mediaManifest, mediaDockerManifest, mediaArtifact:
		return true
	}
	return false
}

// badGraph says that content of strangers breaks a rule or limit.
func badGraph(d hostabi.Digest, format string, a ...any) error {
	return hostabi.Errorf(hostabi.ReasonBadAnswer, "manifest %s %s", short(d), fmt.Sprintf(format, a...))
}

// parseManifest decodes the manifest body of d. What it says of its own type must agree with the descriptor,
// so that one digest cannot be two things (image-spec, GHSA-77vh-xpmg-72qh).
func parseManifest(d hostabi.Descriptor, body []byte) (*manifest, error) {
	m := &manifest{}
	if err := json.Unmarshal(body, m); err != nil {
		return nil, badGraph(d.Digest, "is no JSON: %v", err)
	}
	if m.MediaType != "" && m.MediaType != d.MediaType {
		return nil, badGraph(d.Digest, "says it is %q and is listed as %q", clip(m.MediaType, 100), clip(d.MediaType, 100))
	}
	if (isIndex(d.MediaType) && (m.Config != nil || len(m.Layers) > 0)) || (!isIndex(d.MediaType) && len(m.Manifests) > 0) {
		return nil, badGraph(d.Digest, "is an index and a manifest at once")
	}
	if len(m.Manifests) > maxChildren {
		return nil, badGraph(d.Digest, "lists %d manifests, at most %d", len(m.Manifests), maxChildren)
	}
	if len(m.Layers)+len(m.Blobs) > maxLayers {
		return nil, badGraph(d.Digest, "lists %d layers, at most %d", len(m.Layers)+len(m.Blobs), maxLayers)
	}
	return m, nil
}

// sniffType is the media type that a manifest gives itself, or what its members suggest.
func sniffType(body []byte) string {
	var m manifest
	if json.Unmarshal(body, &m) != nil || m.SchemaVersion != 2 {
		return ""
	}
	switch {
	case isManifest(m.MediaType):
		return m.MediaType
	case m.MediaType != "":
		return ""
	case len(m.Manifests) > 0:
		return mediaIndex
	case m.Config != nil:
		return mediaManifest
	}
	return ""
}

// selection says which part of a graph is wanted.
type selection struct {
	platforms     []hostabi.Platform // none = all
	mediaTypes    []string           // of layers; none = all
	manifestsOnly bool
}

func pullSelection(o hostabi.PullOptions) selection {
	s := selection{platforms: o.Platforms, mediaTypes: o.MediaTypes, manifestsOnly: o.ManifestsOnly}
	if o.AllPlatforms {
		s.platforms = nil
	} else if len(s.platforms) == 0 {
		s.platforms = []hostabi.Platform{{}}
	}
	return s
}

// children are the wanted manifests of an index, and blobs the wanted blobs of a manifest.
func (s selection) children(m *manifest) ([]ociDescriptor, error) {
	if len(s.platforms) == 0 {
		return m.Manifests, nil
	}
	want := make(map[int]bool)
	platforms := false
	for i, d := range m.Manifests {
		if platformOf(d) == nil {
			want[i] = true
			continue
		}
		platforms = true
	}
	if platforms {
		for _, p := range s.platforms {
			i := bestPlatform(m.Manifests, p)
			if i < 0 {
				return nil, hostabi.Errorf(hostabi.ReasonRefNotFound, "nothing for platform %s, there is %s", orHost(p), listPlatforms(m.Manifests))
			}
			want[i] = true
		}
	}
	var out []ociDescriptor
	for i, d := range m.Manifests {
		if want[i] {
			out = append(out, d)
		}
	}
	return out, nil
}

func (s selection) blobs(m *manifest) []ociDescriptor {
	if s.manifestsOnly {
		return nil
	}
	var out []ociDescriptor
	if m.Config != nil {
		out = append(out, *m.Config)
	}
	for _, d := range slices.Concat(m.Layers, m.Blobs) {
		if len(s.mediaTypes) > 0 && !slices.Contains(s.mediaTypes, d.MediaType) {
			continue
		}
		if strings.Contains(d.MediaType, ".nondistributable.") || strings.Contains(d.MediaType, ".foreign.") {
			continue // never in a registry by definition; their urls are not followed
		}
		out = append(out, d)
	}
	return out
}

// node is a manifest with its bytes.
type node struct {
	desc hostabi.Descriptor
	body []byte
}

// graph is everything wanted below a root: manifests with children before parents, each digest once.
type graph struct {
	manifests []node
	blobs     []hostabi.Descriptor
}

func (g *graph) root() node { return g.manifests[len(g.manifests)-1] }

type fetchFunc func(ctx context.Context, d hostabi.Descriptor) ([]byte, error)

// expand reads the manifests below root, some at a time.
func expand(ctx context.Context, root hostabi.Descriptor, sel selection, fetch fetchFunc) (*graph, error) {
	nodes, err := walk(ctx, root, sel, fetch, 0)
	if err != nil {
		return nil, err
	}
	g := &graph{}
	sizes := make(map[hostabi.Digest]int64)
	for _, n := range nodes {
		if _, ok := sizes[n.desc.Digest]; ok {
			continue
		}
		sizes[n.desc.Digest] = n.desc.Size
		g.manifests = append(g.manifests, n)
	}
	for _, n := range g.manifests {
		m, err := parseManifest(n.desc, n.body)
		if err != nil {
			return nil, err
		}
		for _, d := range sel.blobs(m) {
			b, err := fromOCI(d)
			if err != nil {
				return nil, badGraph(n.desc.Digest, "lists a bad descriptor: %v", err)
			}
			size, seen := sizes[b.Digest]
			if seen && size != b.Size {
				return nil, badGraph(n.desc.Digest, "gives %s the size %d and elsewhere %d", short(b.Digest), b.Size, size)
			}
			if !seen {
				sizes[b.Digest] = b.Size
				g.blobs = append(g.blobs, b)
			}
		}
	}
	return g, nil
}

// walk is the manifests at and below d, children first.
func walk(ctx context.Context, d hostabi.Descriptor, sel selection, fetch fetchFunc, depth int) ([]node, error) {
	if depth >= maxNesting {
		return nil, badGraph(d.Digest, "is nested deeper than %d", maxNesting)
	}
	if !isManifest(d.MediaType) {
		return nil, badGraph(d.Digest, "has the media type %q, which is no manifest", clip(d.MediaType, 100))
	}
	body, err := fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	m, err := parseManifest(d, body)
	if err != nil {
		return nil, err
	}
	children, err := sel.children(m)
	if err != nil {
		return nil, err
	}
	below := make([][]node, len(children))
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(defaultConcurrency)
	for i, c := range children {
		eg.Go(func() error {
			h, err := fromOCI(c)
			if err != nil {
				return badGraph(d.Digest, "lists a bad descriptor: %v", err)
			}
			if !isManifest(h.MediaType) {
				return nil // unknown types are to be ignored (image-spec, image-index.md)
			}
			below[i], err = walk(ctx, h, sel, fetch, depth+1)
			return err
		})
	}
	if err := eg.Wait(); err != nil {
		return nil, err
	}
	return append(slices.Concat(below...), node{d, body}), nil
}

// fromOCI checks a descriptor of strangers.
func fromOCI(d ociDescriptor) (hostabi.Descriptor, error) {
	digest, err := hostabi.ParseDigest(string(d.Digest))
	if err != nil {
		return hostabi.Descriptor{}, err
	}
	if d.Size < 0 {
		return hostabi.Descriptor{}, fmt.Errorf("%s has the size %d", short(digest), d.Size)
	}
	return hostabi.Descriptor{
		MediaType: d.MediaType, Digest: digest, Size: d.Size, ArtifactType: d.ArtifactType,
		Annotations: maps.Clone(d.Annotations), Platform: platformOf(d),
	}, nil
}

func toOCI(d hostabi.Descriptor) ociDescriptor {
	o := ociDescriptor{
		MediaType: d.MediaType, Digest: digest.Digest(d.Digest), Size: d.Size, ArtifactType: d.ArtifactType,
		Annotations: maps.Clone(d.Annotations),
	}
	if d.Platform != nil {
		o.Platform = &ocispec.Platform{OS: d.Platform.OS, Architecture: d.Platform.Architecture, Variant: d.Platform.Variant, OSVersion: d.Platform.OSVersion}
	}
	return o
}

// platformOf is the platform of an index entry, else what its annotations say, as the original DS wrote them.
func platformOf(d ociDescriptor) *hostabi.Platform {
	if p := d.Platform; p != nil {
		return &hostabi.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion}
	}
	if d.Annotations["os"] != "" && d.Annotations["architecture"] != "" {
		return &hostabi.Platform{OS: d.Annotations["os"], Architecture: d.Annotations["architecture"], Variant: d.Annotations["variant"]}
	}
	return nil
}

// bestPlatform is the index of the entry for p: equal os and architecture, the highest variant that is not
// above the wanted one, the first on a tie; -1 if there is none.
func bestPlatform(entries []ociDescriptor, p hostabi.Platform) int {
	p = normalise(orHost(p))
	best, bestVariant := -1, ""
	for i, d := range entries {
		have := platformOf(d)
		if have == nil {
			continue
		}
		h := normalise(*have)
		if h.OS != p.OS || h.Architecture != p.Architecture || (p.OSVersion != "" && h.OSVersion != p.OSVersion) || variantNumber(h.Variant) > variantNumber(p.Variant) {
			continue
		}
		if best < 0 || variantNumber(h.Variant) > variantNumber(bestVariant) {
			best, bestVariant = i, h.Variant
		}
	}
	return best
}

func orHost(p hostabi.Platform) hostabi.Platform {
	if p.OS == "" && p.Architecture == "" {
		return hostabi.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH}
	}
	return p
}

// normalise fills in the variant that an architecture has by default; wasm means wasip1/wasm.
func normalise(p hostabi.Platform) hostabi.Platform {
	if p.OS == "wasm" || (p.Architecture == "wasm" && p.OS == "") {
		p.OS, p.Architecture = "wasip1", "wasm"
	}
	if p.Variant == "" {
		p.Variant = map[string]string{"amd64": "v1", "arm": "v7", "arm64": "v8"}[p.Architecture]
	}
	return p
}

func variantNumber(v string) (n int) {
	for _, c := range strings.TrimPrefix(v, "v") {
		if c < '0' || c > '9' || n > 1000 {
			return n
		}
		n = 10*n + int(c-'0')
	}
	return n
}

func listPlatforms(entries []ociDescriptor) string {
	var out []string
	for _, d := range entries {
		if p := platformOf(d); p != nil && !slices.Contains(out, p.String()) {
			out = append(out, clip(p.String(), 40))
		}
	}
	if len(out) > 20 {
		out = append(out[:20], "…")
	}
	return strings.Join(out, ", ")
}

// short is the digest as people read it.
func short(d hostabi.Digest) string {
	if !d.Valid() {
		return clip(string(d), 20)
	}
	return d.Hex()[:12]
}
