package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/archive"
	"github.com/delivery-station/ds/internal/trust"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/registry"
)

const maxLayoutIndex = 4 << 20

func (a *app) pluginSign() *cobra.Command {
	var k signFlags
	var attest []string
	var owner string
	c := &cobra.Command{
		Use: "sign REF|FILE.tar", Short: "Add a signature to a plugin package that is in a registry, layout or tar", Args: wants(1, 1, "one reference"),
		Long: "Sign a package that is there already. A tar of ds plugin package belongs to no repository yet: --for says to which it will\n" +
			"be pushed, or it is installed from the tar as if it came from there.",
		Example: "  ds plugin sign ghcr.io/acme/hello:1.4.0 --key release.pem\n  ds plugin sign hello.tar --for ghcr.io/acme/hello --key release.pem",
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := a.signingKey(cmd.Context(), k)
			if err != nil {
				return err
			}
			if key == nil {
				return hostabi.Errorf(hostabi.ReasonUsage, "there is no key to sign with").WithFix("ds plugin sign %s --key FILE", args[0])
			}
			f := pushFlags{signFlags: k, attest: attest}
			if file, name, ok := a.splitBundle(args[0]); ok && name == "" {
				return a.signTar(cmd.Context(), file, owner, key, f)
			}
			if owner != "" {
				return hostabi.Errorf(hostabi.ReasonUsage, "--for is for a FILE.tar; %s is where it belongs already", args[0])
			}
			return a.sign(cmd.Context(), args[0], key, f)
		},
	}
	k.add(c)
	c.Flags().StringArrayVar(&attest, "attest", nil, "sign and attach a predicate: JSON with predicateType and predicate (repeatable)")
	c.Flags().StringVar(&owner, "for", "", "repository that the package in the tar belongs to")
	return c
}

func (a *app) sign(ctx context.Context, ref string, key *trust.PrivateKey, f pushFlags) error {
	l, err := a.locate(ctx, ref)
	if err != nil {
		return err
	}
	pkg := outgoingOf(l.root, l.doc)
	s := &signed{a, l.client, l.at, l.repository, l.root, pkg.name, pkg.version}
	if err := a.publish(ctx, s, pkg, nil, key, key.ID(), f); err != nil {
		return err
	}
	return a.pushed(l.repository+"@"+string(l.root.Digest), pkg, key.ID())
}

// outgoingOf is a package that is at its target.
func outgoingOf(root hostabi.Descriptor, doc plugin.OCIDocument) *outgoing {
	return &outgoing{root: root, name: doc.Annotations["name"], version: doc.Annotations["version"], send: func(context.Context, string) error { return nil }}
}

// signTar signs every plugin in a tar: unpacked into a temporary layout, and written again as a whole.
func (a *app) signTar(ctx context.Context, file, owner string, key *trust.PrivateKey, f pushFlags) (err error) {
	client, err := a.parts.registry()
	if err != nil {
		return err
	}
	if owner != "" {
		parsed, err := client.Parse(owner)
		if err != nil {
			return err
		}
		if parsed.IsLayout() || parsed.Tag != "" || parsed.Digest != "" {
			return hostabi.Errorf(hostabi.ReasonUsage, "--for is %q, want HOST/REPOSITORY", owner)
		}
		owner = parsed.Name()
	}
	dir, err := os.MkdirTemp("", "ds-sign-")
	if err != nil {
		return hostabi.Errorf(hostabi.ReasonNoSpace, "sign: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := unpackLayout(ctx, file, dir); err != nil {
		return err
	}
	b, err := a.openBundle(ctx, dir)
	if err == nil && len(b.plugins) == 0 {
		if owner == "" {
			return hostabi.Errorf(hostabi.ReasonUsage, "%s does not say which repository it belongs to", filepath.Base(file)).
				WithFix("ds plugin sign %s --for HOST/REPOSITORY --key FILE", filepath.Base(file))
		}
		if err := nameLayout(filepath.Join(dir, "index.json"), owner); err != nil {
			return err
		}
		b, err = a.openBundle(ctx, dir)
	}
	if err != nil {
		return err
	}
	for _, p := range b.plugins {
		if owner != "" && owner != p.repository {
			return hostabi.Errorf(hostabi.ReasonUsage, "%s belongs to %s, not to %s", filepath.Base(file), p.repository, owner)
		}
		if err := a.signIn(ctx, client, dir, p, key, f); err != nil {
			return err
		}
	}
	return packLayout(ctx, dir, file)
}

func (a *app) signIn(ctx context.Context, client *registry.Client, dir string, p bundled, key *trust.PrivateKey, f pushFlags) error {
	at := "oci-layout:" + dir
	root, doc, err := a.index(ctx, client, at+"@"+string(p.root.Digest))
	if err != nil {
		return err
	}
	pkg := outgoingOf(root, doc)
	s := &signed{a, client, at, p.repository, root, pkg.name, pkg.version}
	if err := a.publish(ctx, s, pkg, nil, key, key.ID(), f); err != nil {
		return err
	}
	return a.pushed(p.repository+":"+p.tag, pkg, key.ID())
}

// nameLayout puts the repository before the tags of a layout's index.
func nameLayout(name, repository string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	var index plugin.OCIDocument
	if len(text) > maxLayoutIndex || json.Unmarshal(text, &index) != nil {
		return hostabi.Errorf(hostabi.ReasonBadLayout, "index.json is no index")
	}
	const key = "org.opencontainers.image.ref.name"
	for _, d := range index.Manifests {
		if tag := d.Annotations[key]; tag != "" {
			d.Annotations[key] = repository + ":" + tag
		}
	}
	if text, err = json.Marshal(index); err != nil {
		return err
	}
	return os.WriteFile(name, text, 0o600)
}

func unpackLayout(ctx context.Context, file, dir string) error {
	r, err := os.Open(file)
	if err != nil {
		return hostabi.Errorf(hostabi.ReasonUsage, "%w", err)
	}
	defer func() { _ = r.Close() }() // read-only
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // temporary
	if err := archive.UnpackTar(ctx, r, root, archive.Limits{}); err != nil {
		return hostabi.Errorf(hostabi.ReasonBadLayout, "%s: %w", filepath.Base(file), err)
	}
	return nil
}

// packLayout replaces file by the layout in dir, without what only a directory needs.
func packLayout(ctx context.Context, dir, file string) error {
	names, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		if strings.HasPrefix(n.Name(), ".") {
			if err := os.Remove(filepath.Join(dir, n.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // temporary
	return replaceFile(file, func(w io.Writer) error { return archive.PackTar(ctx, w, root, time.Unix(0, 0)) })
}

// replaceFile puts a file in place as a whole or not at all.
func replaceFile(name string, write func(io.Writer) error) error {
	tmp := fmt.Sprintf("%s.%d.tmp", name, os.Getpid())
	w, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // a package is for others
	if err != nil {
		return hostabi.Errorf(hostabi.ReasonUsage, "%w", err)
	}
	err = write(w)
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, name)
	}
	if err != nil {
		_ = os.Remove(tmp) // the error says more
	}
	return err
}
