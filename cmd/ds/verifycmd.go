package main

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/term"
	"github.com/delivery-station/ds/internal/trust"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/plugin/install"
	"github.com/delivery-station/ds/plugin/store"
	"github.com/delivery-station/ds/registry"
)

// verified is what ds plugin verify prints.
type verified struct {
	Reference    string         `json:"reference"`
	Name         string         `json:"name"`
	Version      string         `json:"version"`
	Index        hostabi.Digest `json:"index,omitempty"`
	Children     []string       `json:"children"`
	Files        string         `json:"files"` // ok, CHANGED, "not installed"
	Changed      []string       `json:"changed"`
	Level        string         `json:"level"` // signed, pinned, legacy-signed, unsigned, local, refused
	Signer       string         `json:"signer"`
	Rule         string         `json:"rule"`
	FirstSeen    string         `json:"first_seen,omitempty"`
	Signatures   []string       `json:"signatures"`
	Attestations []string       `json:"attestations"`
	Capabilities hostabi.Digest `json:"capabilities,omitempty"`
	Lock         string         `json:"lock,omitempty"` // same, DIFFERS, "not listed"; empty without a lock file
}

func (a *app) pluginVerify() *cobra.Command {
	return &cobra.Command{
		Use: "verify NAME|REF|FILE.tar", Short: "Check files and signature of a plugin, installed or not", Args: wants(1, 1, "a plugin or a reference"),
		Long: "Check a plugin against what is trusted now. An installed one needs no network: its files are compared with what was\n" +
			"installed, and the signature with the index that is kept beside them. Exit 5: not trusted; 7: files were changed.",
		ValidArgsFunction: a.pluginNames(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			v := &verified{Children: []string{}, Changed: []string{}, Signatures: []string{}, Attestations: []string{}, Level: "refused", Signer: "none"}
			err := a.verify(cmd.Context(), args[0], v)
			if v.Reference == "" {
				return err
			}
			rerr := a.rows(term.ObjectOf([]string{
				"reference", "name", "version", "index", "children", "files", "changed", "level", "signer", "rule", "first_seen", "signatures", "attestations", "capabilities", "lock",
			}, v))
			if err == nil {
				err = rerr
			}
			return err
		},
	}
}

func (a *app) verify(ctx context.Context, what string, v *verified) error {
	if !strings.ContainsAny(what, "/:.@") {
		return a.verifyInstalled(ctx, plugin.Name(what), v)
	}
	l, err := a.locate(ctx, what)
	if err != nil {
		return err
	}
	v.Reference, v.Index, v.Files = l.repository, l.root.Digest, "not installed"
	v.take(l.doc)
	bundles, err := a.bundles(ctx, l.client, l.at, l.root.Digest)
	if err != nil {
		return err
	}
	e := install.Evidence{Ref: what, Repository: l.repository, Index: l.root.Digest, Name: v.Name, Version: v.Version, Downgrade: true, Force: true}
	repo, err := l.client.Repository(l.at)
	if err != nil {
		return err
	}
	e.Layer, err = install.LayerOf(l.doc, func(d hostabi.Descriptor) ([]byte, error) { return repo.Manifest(ctx, d) })
	if err != nil {
		return err
	}
	for _, d := range slices.Sorted(maps.Keys(bundles)) {
		e.Bundles = append(e.Bundles, bundles[d])
	}
	return a.judge(e, v)
}

// located is a package that is not installed.
type located struct {
	client     *registry.Client
	at         string // repository or layout that holds it
	repository string // where it belongs: of a bundle, where it came from
	root       hostabi.Descriptor
	doc        plugin.OCIDocument
}

// locate finds what a reference, FILE.tar[:NAME] or a directory names.
func (a *app) locate(ctx context.Context, what string) (l located, err error) {
	if l.client, err = a.parts.registry(); err != nil {
		return l, err
	}
	ref := what
	if file, name, ok := a.splitBundle(what); ok {
		ref = "oci-layout:" + file
		b, err := a.openBundle(ctx, file)
		if err != nil {
			return l, err
		}
		for _, p := range b.plugins {
			if name == "" && len(b.plugins) == 1 || name == p.name {
				l.at, l.repository = ref, p.repository
				l.root, l.doc, err = a.index(ctx, l.client, ref+"@"+string(p.root.Digest))
				return l, err
			}
		}
		if len(b.plugins) > 0 {
			return l, hostabi.Errorf(hostabi.ReasonRefNotFound, "%s holds %s, none of them is %q", what, counted(len(b.plugins), "plugin"), name)
		}
	} else if a.isDir(what) {
		ref = "oci-layout:" + a.absolute(what)
	}
	parsed, err := l.client.Parse(ref)
	if err != nil {
		return l, err
	}
	l.at, l.repository = parsed.Name(), parsed.Name()
	l.root, l.doc, err = a.index(ctx, l.client, ref)
	return l, err
}

func (a *app) verifyInstalled(ctx context.Context, name plugin.Name, v *verified) error {
	s := a.parts.store()
	p, perr := s.Lookup(ctx, name)
	r, err := s.Receipt(name)
	switch {
	case hostabi.ReasonOf(err) == hostabi.ReasonPluginNotFound && perr == nil: // placed by hand
		v.Reference, v.Name, v.Version, v.Level, v.Files = p.Repository, string(p.Name), p.Version, store.LevelLocal, "not kept by ds"
		return nil
	case err != nil:
		return err
	}
	v.Reference, v.Name, v.Version, v.Index, v.Files, v.Capabilities = r.Source.Repository, string(name), r.PluginVersion, r.Index, "ok", r.RequestDigest
	if r.Dev != "" {
		v.Level, v.Files = store.LevelLocal, "not kept by ds"
		return perr
	}
	if changed := s.Changed(r); len(changed) > 0 {
		v.Files, v.Changed = "CHANGED", changed
		return hostabi.Errorf(hostabi.ReasonPluginModified, "%s %s: %s changed since install", name, r.PluginVersion, counted(len(changed), "file")).
			WithFix("ds plugin install %s --force", r.Source.Requested)
	}
	if v.Lock, err = a.lockState(r); err != nil {
		return err
	}
	index, bundles, err := s.Evidence(r)
	if err != nil {
		return err
	}
	var doc plugin.OCIDocument
	_ = json.Unmarshal(index, &doc) // its digest is that of the receipt; none = an older ds installed it
	v.take(doc)
	v.Name, v.Version = string(name), r.PluginVersion
	e := install.Evidence{
		Ref: string(name), Repository: r.Source.Repository, Index: r.Index, Name: v.Name, Version: v.Version, Bundles: bundles,
		Active: true, Accepted: r.Trust.AllowUnsigned, Layer: installedLayer(s, r),
	}
	return a.judge(e, v)
}

// lockState compares an installed plugin with its entry in the lock file of this installation.
func (a *app) lockState(r *store.Receipt) (string, error) {
	lock, err := a.parts.store().ReadLock(a.lockPath(""))
	if hostabi.ReasonOf(err) == hostabi.ReasonConfigFile {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	want, listed := lock[r.Name]
	if !listed {
		return "not listed", nil
	}
	got, _, err := a.parts.store().Locked(r)
	if err == nil && len(want.Differences(got)) > 0 {
		return "DIFFERS", nil
	}
	return "same", err
}

// take notes what an index says.
func (v *verified) take(doc plugin.OCIDocument) {
	v.Name, v.Version = doc.Annotations["name"], doc.Annotations["version"]
	for _, d := range doc.Manifests {
		if d.Platform != nil {
			v.Children = append(v.Children, d.Platform.OS+"/"+d.Platform.Architecture+" "+d.Digest)
		}
	}
}

// judge asks what is trusted now; nothing is recorded and nobody is asked.
func (a *app) judge(e install.Evidence, v *verified) error {
	in, err := verifier{a}.input(e)
	if err != nil {
		return err
	}
	if in.Pin != nil {
		v.FirstSeen = in.Pin.FirstSeen.UTC().Format(time.RFC3339)
	}
	t, err := trust.Evaluate(in)
	if err == nil && t.Ask {
		err = t.Untrusted(e.Ref)
	}
	for _, f := range t.Bundles {
		line := f.Type + " " + f.Key.Short()
		switch f.Type {
		case trust.ReleaseType, trust.CosignType:
			v.Signatures = append(v.Signatures, line)
		case "":
			v.Attestations = append(v.Attestations, "certificate (not verified)")
		default:
			v.Attestations = append(v.Attestations, strings.TrimSpace(term.Clean(line, 300)))
		}
	}
	if err != nil {
		return err
	}
	v.Level, v.Signer, v.Rule = t.Level, signerOf(t.Key), t.Rule
	grants, err := a.parts.grants()
	if err != nil {
		return err
	}
	ceiling, err := grants.Policy()
	if err == nil {
		err = ceiling.AllowSource(e.Repository)
	}
	if err == nil {
		err = ceiling.AllowSigner(v.Signer)
	}
	return err
}
