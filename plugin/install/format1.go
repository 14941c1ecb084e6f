package install

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/archive"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/plugin/store"
)

// ours begins every type of the original DS.
const ours = "application/vnd.delivery-station."

// Layer types of packages of the original DS beside plugin.LegacyBinaryType.
const (
	artifactBinary  = ours + "artifact.v1+binary"
	pluginArchive   = ours + "plugin.v1+archive.tar+gzip"
	artifactArchive = ours + "artifact.v1+archive.tar+gzip"
)

var format1Types = []string{plugin.LegacyBinaryType, artifactBinary, pluginArchive, artifactArchive}

// Layer is a program layer of a package of the original DS with the signature that its annotations claim.
type Layer struct {
	Digest    hostabi.Digest
	Signature string // base64, RSA
	KeyID     string // hex SHA-256 of the key's PKIX DER, or empty
}

// SignedLayer is layer 0 of a child as the original DS signs it, nil if there is none or it claims no signature.
// Packages of this ds have such a signature only to stop the original's installer.
func SignedLayer(child plugin.OCIDocument) *Layer {
	if len(child.Layers) == 0 || !slices.Contains(format1Types, child.Layers[0].MediaType) {
		return nil
	}
	l := child.Layers[0]
	signature := l.Annotations[plugin.LegacySignature]
	if signature == "" {
		return nil
	}
	return &Layer{Digest: hostabi.Digest(l.Digest), Signature: signature, KeyID: l.Annotations[plugin.LegacyKeyID]}
}

// LayerOf is SignedLayer of the program for this platform in a package that was resolved to doc; read gives the
// document of a child. It is nil for packages of this ds.
func LayerOf(doc plugin.OCIDocument, read func(d hostabi.Descriptor) ([]byte, error)) (*Layer, error) {
	f := &flow{doc: doc}
	if !f.isFormat1() {
		return nil, nil
	}
	if len(doc.Manifests) == 0 {
		return SignedLayer(doc), nil
	}
	i := slices.IndexFunc(doc.Manifests, here)
	if i < 0 {
		return nil, nil
	}
	b, err := read(descriptor(doc.Manifests[i]))
	if err != nil {
		return nil, err
	}
	var child plugin.OCIDocument
	if err := json.Unmarshal(b, &child); err != nil {
		return nil, invalid("%s is no OCI document", doc.Manifests[i].Digest)
	}
	return SignedLayer(child), nil
}

// isFormat1 reports whether the document that was resolved is a package of the original DS (install-trust.md
// section 14): an index without a plugin manifest, or the manifest of one program.
func (f *flow) isFormat1() bool {
	if len(f.doc.Manifests) == 0 {
		return len(f.doc.Layers) > 0 && strings.HasPrefix(f.doc.Layers[0].MediaType, ours)
	}
	if slices.ContainsFunc(f.doc.Manifests, func(d plugin.OCIDescriptor) bool { return d.ArtifactType == plugin.ManifestType }) {
		return false
	}
	v2 := func(d plugin.OCIDescriptor) bool { _, ok := kindOf(d); return ok }
	named := f.doc.Annotations["name"] != "" && slices.ContainsFunc(f.doc.Manifests, here)
	legacy := slices.ContainsFunc(f.doc.Manifests, func(d plugin.OCIDescriptor) bool { return slices.Contains(format1Types, d.ArtifactType) })
	return !slices.ContainsFunc(f.doc.Manifests, v2) && (legacy || named || f.doc.ArtifactType == plugin.IndexType)
}

// here reports whether the original DS would take a child for this platform.
func here(d plugin.OCIDescriptor) bool {
	if p := d.Platform; p != nil && strings.EqualFold(p.OS, runtime.GOOS) && strings.EqualFold(p.Architecture, runtime.GOARCH) {
		return true
	}
	return strings.EqualFold(d.Annotations["os"], runtime.GOOS) && strings.EqualFold(d.Annotations["architecture"], runtime.GOARCH)
}

// format1 reads a package of the original DS: its one program and a manifest that says nothing but its name and
// version. The child is read before the verdict, because the signature is in it.
func (f *flow) format1(ctx context.Context) error {
	desc := plugin.OCIDescriptor{MediaType: f.root.MediaType, Digest: string(f.root.Digest), Size: f.root.Size}
	doc := f.doc
	if len(f.doc.Manifests) > 0 {
		i := slices.IndexFunc(f.doc.Manifests, here)
		if i < 0 {
			return hostabi.Errorf(hostabi.ReasonPlatformUnsupported, "%s has no program for %s/%s; it has %v", f.req.Ref, runtime.GOOS, runtime.GOARCH, f.platforms())
		}
		desc, doc = f.doc.Manifests[i], plugin.OCIDocument{}
		if err := f.document(ctx, descriptor(desc), &doc); err != nil {
			return err
		}
	}
	if len(doc.Layers) == 0 {
		return invalid("%s has no layer", desc.Digest)
	}
	l := doc.Layers[0]
	switch {
	case !slices.Contains(format1Types, l.MediaType):
		return invalid("layer type %q is none of the original DS", l.MediaType)
	case l.Size < 0 || l.Size > maxProgram:
		return invalid("layer %s has %d bytes, at most %d", l.Digest, l.Size, maxProgram)
	case !hostabi.Digest(l.Digest).Valid():
		return invalid("layer digest %q", l.Digest)
	case f.req.Kind == plugin.WASM:
		return hostabi.Errorf(hostabi.ReasonPlatformUnsupported, "%s is a package of the original DS and has no WASM program", f.req.Ref)
	}
	name, version := f.described(doc)
	m := &plugin.Manifest{Name: plugin.Name(name), Version: version, Run: plugin.Run{Native: &plugin.RunNative{Mode: plugin.Protocol1}}}
	m.Description = cmp.Or(f.doc.Annotations["description"], doc.Annotations["description"])
	text, err := m.JSON() // what is kept must be read again
	if err == nil {
		f.m, _, err = plugin.ParseManifest("the package", text)
	}
	if err != nil {
		return invalid("%w", err)
	}
	f.chosen, f.layer = []child{{plugin.Native, desc, l}}, SignedLayer(doc)
	return nil
}

// described is name and version of a package: as it says, else as it is called.
func (f *flow) described(child plugin.OCIDocument) (name, version string) {
	name = cmp.Or(f.doc.Annotations["name"], child.Annotations["name"], f.repositoryBase())
	version = cmp.Or(f.doc.Annotations["version"], child.Annotations["version"], f.doc.Annotations[plugin.OCIVersion], child.Annotations[plugin.OCIVersion],
		f.tag, tagOf(f.req.Ref), "0.0.0-"+f.root.Digest.Hex()[:12])
	return strings.TrimPrefix(name, "ds-"), strings.TrimPrefix(version, "v")
}

// repositoryBase is the last element of the repository, which is what the original DS calls the program.
func (f *flow) repositoryBase() string { return path.Base(filepath.ToSlash(f.src.Name())) }

// tagOf is the tag of a reference, or "".
func tagOf(ref string) string {
	base, _, _ := strings.Cut(ref, "@")
	i := strings.LastIndexByte(base, ':')
	if i < 0 || strings.ContainsAny(base[i:], `/\`) {
		return ""
	}
	return base[i+1:]
}

func (f *flow) platforms() (out []string) {
	for _, d := range f.doc.Manifests {
		name, arch := d.Annotations["os"], d.Annotations["architecture"]
		if d.Platform != nil {
			name, arch = d.Platform.OS, d.Platform.Architecture
		}
		out = append(out, name+"/"+arch)
	}
	return out
}

func isArchive(l plugin.OCIDescriptor) bool {
	return l.MediaType == pluginArchive || l.MediaType == artifactArchive
}

// extractArchive takes the program out of an archive: the file that is called like the repository. The whole
// archive must be one that may be unpacked; nothing else of it is kept.
func (f *flow) extractArchive(ctx context.Context, l plugin.OCIDescriptor, stage *store.Stage) (digest hostabi.Digest, err error) {
	file, err := f.fetch(ctx, descriptor(l))
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }() // read-only
	dir := filepath.Join(stage.Dir, "archive")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	defer func() {
		if rerr := os.RemoveAll(dir); err == nil {
			err = rerr
		}
	}()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer func() { _ = root.Close() }() // a directory
	z, err := archive.GzipReader(file, maxProgram)
	if err != nil {
		return "", packageError(err)
	}
	err = archive.UnpackTar(ctx, z, root, archive.Limits{Bytes: maxProgram})
	if err = errors.Join(err, z.Close()); err != nil {
		return "", packageError(err)
	}
	name := f.repositoryBase()
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	info, err := root.Lstat(name)
	if err != nil || !info.Mode().IsRegular() {
		return "", invalid("its archive has no file %s", name)
	}
	program, err := root.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = program.Close() }() // read-only
	out, err := stage.Create(stage.Program)
	if err != nil {
		return "", err
	}
	digest, _, err = copyHashed(out, program)
	return digest, errors.Join(err, out.Close())
}
