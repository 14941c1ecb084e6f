package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/internal/term"
	"github.com/delivery-station/ds/internal/trust"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/plugin/publish"
	"github.com/delivery-station/ds/plugin/store"
	"github.com/delivery-station/ds/registry"
)

// packFlags say how a directory is packed.
type packFlags struct {
	legacy, wasmZstd bool
	wasmConfig       string
}

func (f *packFlags) add(c *cobra.Command) {
	c.Flags().BoolVar(&f.legacy, "legacy", false, "add native programs in the form that the original DS installs")
	c.Flags().BoolVar(&f.wasmZstd, "wasm-zstd", false, "compress the module; only ds can read it then")
	c.Flags().StringVar(&f.wasmConfig, "wasm-config", "wasm", "config of the module: wasm (CNCF), or empty for registries that refuse it")
}

// build packs dir. SOURCE_DATE_EPOCH is the only time in a package.
func (a *app) build(ctx context.Context, dir string, f packFlags) (*publish.Package, *plugin.Manifest, error) {
	m, err := store.ReadDir(atomicfile.OS(), dir)
	if err != nil {
		return nil, nil, err
	}
	if m.Generated {
		return nil, nil, hostabi.Errorf(hostabi.ReasonManifest, "%s: commands are still to be generated", filepath.Join(dir, "plugin.yaml"))
	}
	if f.wasmConfig != "wasm" && f.wasmConfig != "empty" {
		return nil, nil, hostabi.Errorf(hostabi.ReasonUsage, "--wasm-config is %q, want wasm or empty", f.wasmConfig)
	}
	created, err := a.epoch()
	if err != nil {
		return nil, nil, err
	}
	p, err := publish.Options{Created: created, Legacy: f.legacy, WASMZstd: f.wasmZstd, EmptyConfig: f.wasmConfig == "empty"}.Build(ctx, dir, m)
	return p, m, err
}

// epoch is the time of whatever is the same each time it is made.
func (a *app) epoch() (time.Time, error) {
	var sec int64
	if s := a.env("SOURCE_DATE_EPOCH"); s != "" {
		if _, err := fmt.Sscan(s, &sec); err != nil {
			return time.Time{}, hostabi.Errorf(hostabi.ReasonUsage, "SOURCE_DATE_EPOCH is %q, want seconds since 1970", s)
		}
	}
	return time.Unix(sec, 0), nil
}

// pushFlags are the flags of ds plugin push.
type pushFlags struct {
	packFlags
	signFlags
	unsigned, noLatest, force, dryRun bool
	attest, sbom                      []string
}

func (a *app) pluginPush() *cobra.Command {
	var f pushFlags
	c := &cobra.Command{
		Use: "push [DIR|FILE.tar] [REF]", Short: "Pack, push and sign a plugin: index by digest, signature, tags last", Args: wants(0, 2, "a directory and a reference"),
		Long: "Push a plugin directory, or a package that ds plugin package made. Everything is sent by digest, signed, read back and\n" +
			"verified; only then the version gets its tag, and latest if it is the highest release.",
		Example: "  ds plugin push ./hello ghcr.io/acme/hello --key release.pem\n  ds plugin push . oci-layout:./plugins/hello --unsigned",
		RunE: func(cmd *cobra.Command, args []string) error {
			from, ref := a.wd, ""
			if len(args) > 0 {
				from = a.absolute(args[0])
			}
			if len(args) > 1 {
				ref = args[1]
			}
			return a.push(cmd.Context(), from, ref, f)
		},
	}
	f.packFlags.add(c)
	f.signFlags.add(c)
	fl := c.Flags()
	fl.BoolVar(&f.unsigned, "unsigned", false, "push without a signature")
	fl.StringArrayVar(&f.attest, "attest", nil, "sign and attach a predicate: JSON with predicateType and predicate (repeatable)")
	fl.StringArrayVar(&f.sbom, "sbom", nil, "attach an SBOM, SPDX or CycloneDX JSON (repeatable)")
	fl.BoolVar(&f.noLatest, "no-latest", false, "do not move the tag latest")
	fl.BoolVar(&f.force, "force", false, "move an existing version tag to other content")
	fl.BoolVar(&f.dryRun, "dry-run", false, "pack and check, push nothing")
	return c
}

// outgoing is a package on its way: its index, and how its graph gets into a repository by digest.
type outgoing struct {
	root          hostabi.Descriptor
	name, version string
	tar           string // layout that it comes from, or empty
	send          func(ctx context.Context, ref string) error
	close         func() error
}

func (a *app) outgoing(ctx context.Context, client *registry.Client, from string, f packFlags) (*outgoing, error) {
	if strings.HasSuffix(from, ".tar") {
		l, err := a.locate(ctx, from)
		if err != nil {
			return nil, err
		}
		return &outgoing{l.root, l.doc.Annotations["name"], l.doc.Annotations["version"], l.at, func(ctx context.Context, ref string) error {
			_, err := client.Copy(ctx, l.at+"@"+string(l.root.Digest), ref, registry.CopyOptions{Referrers: true, Progress: a.term.Report})
			return err
		}, func() error { return nil }}, nil
	}
	p, m, err := a.build(ctx, from, f)
	if err != nil {
		return nil, err
	}
	return &outgoing{p.Root, string(m.Name), m.Version, "", func(ctx context.Context, ref string) error {
		return client.Push(ctx, ref, p.Root, p.Open, a.term.Report)
	}, p.Close}, nil
}

func (a *app) push(ctx context.Context, from, ref string, f pushFlags) error {
	key, err := a.signingKey(ctx, f.signFlags)
	if err != nil {
		return err
	}
	switch {
	case f.unsigned && f.file != "":
		return hostabi.Errorf(hostabi.ReasonUsage, "--key and --unsigned contradict each other")
	case f.unsigned:
		key = nil
	case key == nil && !strings.HasSuffix(from, ".tar"):
		return noKey()
	}
	if key == nil && (len(f.attest) > 0 || f.rotateFrom != "") {
		return hostabi.Errorf(hostabi.ReasonUsage, "--attest and --rotate-from need a key")
	}
	client, err := a.parts.registry()
	if err != nil {
		return err
	}
	pkg, err := a.outgoing(ctx, client, from, f.packFlags)
	if err != nil {
		return err
	}
	defer func() { _ = pkg.close() }() // temporary files
	if ref == "" {
		ref = "oci-layout:" + filepath.Join(a.paths.Data, "registry", pkg.name)
	}
	parsed, err := client.Parse(ref)
	if err != nil {
		return err
	}
	if parsed.Tag != "" && parsed.Tag != pkg.version || parsed.Digest != "" {
		return hostabi.Errorf(hostabi.ReasonUsage, "%s names another version than plugin.yaml, %s", ref, pkg.version)
	}
	repository, tag := parsed.Name(), publish.Tag(pkg.version)
	signer, err := pkg.signer(ctx, a, client, repository, key, f.unsigned)
	if err != nil {
		return err
	}
	if err := a.checkTag(ctx, repository+":"+tag, pkg.root.Digest, f.force); err != nil {
		return err
	}
	tags, err := a.tagsOf(ctx, client, repository, tag, f.noLatest)
	if err != nil {
		return err
	}
	if f.dryRun {
		fmt.Fprintf(a.stderr(), "note: nothing was pushed; the tags would be %s\n", strings.Join(tags, ", "))
	} else if err := a.publish(ctx, &signed{a, client, repository, repository, pkg.root, pkg.name, pkg.version}, pkg, tags, key, signer, f); err != nil {
		return err
	}
	if signer == "" {
		fmt.Fprintf(a.stderr(), "warning: %s %s is not signed; users need --allow-unsigned\n", pkg.name, pkg.version)
	}
	return a.pushed(repository+":"+tag, pkg, signer)
}

func noKey() error {
	return hostabi.Errorf(hostabi.ReasonUnsigned, "there is no key to sign with").WithFix("ds plugin push --key FILE\nwithout a signature: ds plugin push --unsigned")
}

// signer is the key that the package will be signed with in repository: the given one, or who signed it in its tar.
func (o *outgoing) signer(ctx context.Context, a *app, client *registry.Client, repository string, key *trust.PrivateKey, unsigned bool) (trust.KeyID, error) {
	switch {
	case key != nil:
		return key.ID(), nil
	case unsigned:
		return "", nil
	}
	id, err := (&signed{a, client, o.tar, repository, o.root, o.name, o.version}).signer(ctx)
	if err == nil && id == "" {
		err = noKey()
	}
	return id, err
}

// pushed is the result as rows.
func (a *app) pushed(ref string, pkg *outgoing, signer trust.KeyID) error {
	return a.rows(term.ObjectOf([]string{"reference", "digest", "name", "version", "signer"}, struct {
		Reference string         `json:"reference"`
		Digest    hostabi.Digest `json:"digest"`
		Name      string         `json:"name"`
		Version   string         `json:"version"`
		Signer    string         `json:"signer"`
	}{ref, pkg.root.Digest, pkg.name, pkg.version, signerOf(signer)}))
}

// publish sends, attaches, reads back, and tags last. With a key the package is signed, unless it is already.
func (a *app) publish(ctx context.Context, s *signed, pkg *outgoing, tags []string, key *trust.PrivateKey, signer trust.KeyID, f pushFlags) error {
	byDigest := s.repository + "@" + string(pkg.root.Digest)
	r := publish.Release{
		Send:   func(ctx context.Context) error { return pkg.send(ctx, byDigest) },
		Attach: s.attach,
		Tag:    func(ctx context.Context, tag string) error { return s.client.Tag(ctx, byDigest, tag) },
	}
	attached, err := a.sboms(f.sbom)
	if err != nil {
		return err
	}
	if key != nil {
		there, err := s.verifiesWith(ctx, key.ID()) // of an earlier try
		if err != nil {
			return err
		}
		bundles, err := s.signatures(ctx, key, there, f.signFlags)
		if err != nil {
			return err
		}
		attested, err := s.attestations(key, f.attest)
		if err != nil {
			return err
		}
		attached = append(append(attached, bundles...), attested...)
	}
	if signer != "" {
		r.Check = func(ctx context.Context) error { return s.check(ctx, signer) }
	}
	return r.Publish(ctx, attached, tags)
}

// tagsOf are the tags to move: the version, and latest if no higher release is there.
func (a *app) tagsOf(ctx context.Context, client *registry.Client, repository, tag string, noLatest bool) ([]string, error) {
	if noLatest || strings.Contains(tag, "-") {
		return []string{tag}, nil
	}
	highest, err := plugin.PickVersion(client.Tags(ctx, repository), "")
	switch {
	case hostabi.ReasonOf(err) == hostabi.ReasonRefNotFound: // a first version
	case err != nil:
		return nil, err
	case plugin.CompareVersions(untag(tag), untag(highest)) < 0:
		return []string{tag}, nil
	}
	return []string{tag, "latest"}, nil
}

func untag(tag string) string { return strings.ReplaceAll(strings.TrimPrefix(tag, "v"), "_", "+") }

// checkTag refuses to move a version to other content: versions do not change.
func (a *app) checkTag(ctx context.Context, ref string, want hostabi.Digest, force bool) error {
	if force {
		return nil
	}
	client, err := a.parts.registry()
	if err != nil {
		return err
	}
	have, err := client.ResolveFresh(ctx, ref)
	switch {
	case hostabi.ReasonOf(err) == hostabi.ReasonRefNotFound:
		return nil
	case err != nil:
		return err
	case have.Digest != want:
		return hostabi.Errorf(hostabi.ReasonPushRefused, "%s is %s already", ref, have.Digest).WithFix("ds plugin push --force")
	}
	return nil
}
