package install

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/plugin/store"
)

// Limits of what may be attached to an index: everything is read before anything is trusted.
const (
	maxBundles     = 100
	maxBundleBytes = 16 << 20
)

const unsignedSigner = "none" // Installed.Signer without one

// evidenceDir holds, in an installed version, what it was verified from: ds plugin verify needs no network.
const evidenceDir = "oci"

// Verifier judges whose an index is: cmd/ds over internal/trust. It is asked before anything but the index and
// its bundles is read.
type Verifier interface {
	Verify(ctx context.Context, e Evidence) (Verdict, error)
}

// Evidence is what is known of an index, from itself and from the user.
type Evidence struct {
	Ref, Repository string // as the user wrote it; canonical
	Index           hostabi.Digest
	Name, Version   string   // as the index says
	Bundles         [][]byte // Sigstore bundles that are attached to it
	Layer           *Layer   // program of a package of the original DS that is signed; nil = none
	Active          bool     // this very index is active: nothing can go back
	Accepted        bool     // the user accepts this digest unsigned

	TrustKey, TrustHow string
	Downgrade, Force   bool
}

// Verdict says why the index may be used.
type Verdict struct {
	Level       string // signed, pinned, legacy-signed, unsigned
	Signer      string // key id, or "none"
	Rule        string
	Bundle      hostabi.Digest // that decided
	SignedAt    time.Time
	Accepted    bool   // only because Evidence.Accepted
	New         bool   // only if the user accepts the signer, whom the repository never had
	RotatedFrom string // signer before, who named this one

	// Record writes the pin. It is called when the plugin is in place, and the user has said yes; nil = nothing
	// to write.
	Record func(ctx context.Context) error
}

// verify gathers the evidence and asks the verifier.
func (f *flow) verify(ctx context.Context) (err error) {
	if f.bundles, err = Bundles(ctx, f.src, f.req.Ref, f.root.Digest, f.small); err != nil {
		return err
	}
	e := Evidence{
		Ref: f.req.Ref, Repository: f.src.Name(), Index: f.root.Digest, Name: f.doc.Annotations["name"], Version: f.doc.Annotations["version"],
		Accepted: f.req.AllowUnsigned, TrustKey: f.req.TrustKey, TrustHow: f.req.TrustHow, Downgrade: f.req.Downgrade || f.req.Exact,
		Force: f.req.Force || f.req.Exact,
	}
	if f.m != nil { // of format 1
		e.Name, e.Version, e.Layer = string(f.m.Name), f.m.Version, f.layer
	}
	for _, d := range slices.Sorted(maps.Keys(f.bundles)) {
		e.Bundles = append(e.Bundles, f.bundles[d])
	}
	if r, err := f.o.Store.Receipt(plugin.Name(e.Name)); err == nil && r.Index == e.Index && r.Source.Repository == e.Repository {
		e.Active = true
		e.Accepted = e.Accepted || r.Trust.AllowUnsigned // it holds for this digest
	}
	v := f.o.Verifier
	if v == nil {
		v = unverified{}
	}
	f.verdict, err = v.Verify(ctx, e)
	return err
}

// Referrers is the part of a Source that knows what is attached to an index.
type Referrers interface {
	Manifest(ctx context.Context, d hostabi.Descriptor) ([]byte, error)
	Referrers(ctx context.Context, subject hostabi.Digest, artifactType string) iter.Seq2[hostabi.Descriptor, error]
}

// Bundles are the Sigstore bundles attached to an index, by the digest of the referrer's layer; read fetches one.
// ref is for messages. That the registry cannot say is an error, never "none".
func Bundles(ctx context.Context, src Referrers, ref string, index hostabi.Digest, read func(context.Context, plugin.OCIDescriptor) ([]byte, error)) (map[hostabi.Digest][]byte, error) {
	out := make(map[hostabi.Digest][]byte)
	var total int64
	for d, err := range src.Referrers(ctx, index, plugin.BundleType) {
		if err != nil {
			return nil, err
		}
		text, err := src.Manifest(ctx, d)
		if err != nil {
			return nil, err
		}
		var m plugin.OCIDocument
		if json.Unmarshal(text, &m) != nil || len(m.Layers) != 1 || m.Layers[0].MediaType != plugin.BundleType || !hostabi.Digest(m.Layers[0].Digest).Valid() {
			return nil, badSignature(ref, "%s is no bundle", d.Digest)
		}
		l := m.Layers[0]
		if total += l.Size; l.Size < 0 || total > maxBundleBytes || len(out) == maxBundles {
			return nil, badSignature(ref, "more than %d bundles or %d bytes are attached", maxBundles, maxBundleBytes)
		}
		if out[hostabi.Digest(l.Digest)], err = read(ctx, l); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func badSignature(ref, format string, a ...any) error {
	e := hostabi.Errorf(hostabi.ReasonSignature, format, a...)
	e.Msg = "signature of " + ref + " is bad: " + e.Msg
	return e
}

// evidence keeps in a stage what the verdict was made from.
func (f *flow) evidence(stage string, c child) error {
	dir := filepath.Join(stage, evidenceDir)
	if err := os.MkdirAll(filepath.Join(dir, "bundles"), 0o700); err != nil {
		return err
	}
	write := func(name string, b []byte) error { return os.WriteFile(filepath.Join(dir, name), b, 0o600) }
	err := errors.Join(write("index.json", f.docs[f.root.Digest]), write("child.json", f.docs[hostabi.Digest(c.desc.Digest)]))
	for d, b := range f.bundles {
		err = errors.Join(err, write(filepath.Join("bundles", d.Hex()+".json"), b))
	}
	return err
}

// trust is the verdict as the receipt keeps it.
func (f *flow) trust() store.Trust {
	t := store.Trust{
		Level: f.verdict.Level, Rule: f.verdict.Rule, Bundle: string(f.verdict.Bundle), AllowUnsigned: f.verdict.Accepted,
		VerifiedAt: f.o.Clock().UTC().Truncate(time.Second),
	}
	if f.verdict.Signer != unsignedSigner {
		t.Key = f.verdict.Signer
	}
	return t
}

// differs reports whether an index that is installed already has to be installed again, because somebody else is
// behind it now.
func (v Verdict) differs(t store.Trust) bool {
	signer := t.Key
	if signer == "" {
		signer = unsignedSigner
	}
	return v.New || v.Signer != signer || v.Level != t.Level
}

func (v Verdict) news() *plugin.SignerNews {
	if !v.New && v.RotatedFrom == "" {
		return nil
	}
	return &plugin.SignerNews{New: v.New, RotatedFrom: v.RotatedFrom, SignedAt: v.SignedAt}
}

// unverified trusts nobody.
type unverified struct{}

func (unverified) Verify(_ context.Context, e Evidence) (Verdict, error) {
	if !e.Accepted {
		return Verdict{}, hostabi.Errorf(hostabi.ReasonUnsigned, "%s is not signed", e.Ref).WithFix("ds plugin install %s --allow-unsigned", e.Ref)
	}
	return Verdict{Level: store.LevelUnsigned, Signer: unsignedSigner, Accepted: true}, nil
}
