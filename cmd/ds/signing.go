package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/internal/trust"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/plugin/install"
	"github.com/delivery-station/ds/plugin/publish"
	"github.com/delivery-station/ds/registry"
)

const (
	maxKey       = 64 << 10
	maxPredicate = 1 << 20
	maxSBOM      = 64 << 20
)

// signFlags say what signs.
type signFlags struct{ file, passphraseFile, rotateFrom string }

func (k *signFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&k.file, "key", "", "private key file (PEM); else the PEM text in DS_SIGNING_KEY")
	c.Flags().StringVar(&k.passphraseFile, "passphrase-file", "", "file with the passphrase of the key")
	c.Flags().StringVar(&k.rotateFrom, "rotate-from", "", "private key that users know, which names the new one")
}

// signingKey reads the key that --key or DS_SIGNING_KEY gives; nil when there is neither.
func (a *app) signingKey(ctx context.Context, k signFlags) (*trust.PrivateKey, error) {
	if k.file != "" {
		return a.privateKey(ctx, k.file, k.passphraseFile)
	}
	text := a.env("DS_SIGNING_KEY")
	if text == "" {
		return nil, nil
	}
	return a.parseKey(ctx, "DS_SIGNING_KEY", []byte(text), k.passphraseFile)
}

func (a *app) privateKey(ctx context.Context, file, passphraseFile string) (*trust.PrivateKey, error) {
	text, err := a.readFile(file, maxKey)
	if err != nil {
		return nil, err
	}
	return a.parseKey(ctx, file, text, passphraseFile)
}

func (a *app) parseKey(ctx context.Context, name string, text []byte, passphraseFile string) (*trust.PrivateKey, error) {
	key, err := trust.ParsePrivateKey(text, func() ([]byte, error) { return a.passphrase(ctx, "passphrase of "+name+":", passphraseFile) })
	if e, ok := err.(*hostabi.Error); ok && e.Op == "" { //nolint:errorlint // an error of trust itself, not one that it wraps
		e.Op = name
	}
	return key, err
}

// passphrase comes from a file, without its line end, or from the terminal.
func (a *app) passphrase(ctx context.Context, question, file string) ([]byte, error) {
	if file != "" {
		b, err := a.readFile(file, maxKey)
		return bytes.TrimRight(b, "\r\n"), err
	}
	answer, _, err := a.term.Prompt(ctx, hostabi.Prompt{Kind: "secret", Text: question})
	if hostabi.ReasonOf(err) == hostabi.ReasonNoTerminal {
		err = hostabi.AsError(err).WithFix("--passphrase-file FILE")
	}
	a.secrets.Add(answer)
	return []byte(answer), err
}

func (a *app) readFile(name string, limit int64) ([]byte, error) {
	b, err := atomicfile.ReadFile(atomicfile.OS(), a.absolute(name), limit)
	if err != nil {
		return nil, hostabi.Errorf(hostabi.ReasonUsage, "%s cannot be read: %w", name, err)
	}
	return b, nil
}

// signed is an index in a repository, as signing sees it.
type signed struct {
	a             *app
	client        *registry.Client
	repository    string // where it is
	signedFor     string // repository that the signature names
	root          hostabi.Descriptor
	name, version string
}

func (s *signed) attach(ctx context.Context, at publish.Attachment) error {
	_, err := s.client.Attach(ctx, s.repository, s.root, registry.Referrer{ArtifactType: at.Type, MediaType: at.Type, Blob: at.Blob, Annotations: at.Annotations})
	return err
}

// evidence reads back what is attached to the index.
func (s *signed) evidence(ctx context.Context) (trust.Input, error) {
	bundles, err := s.a.bundles(ctx, s.client, s.repository, s.root.Digest)
	if err != nil {
		return trust.Input{}, err
	}
	in := trust.Input{Ref: s.repository, Repository: s.signedFor, Index: s.root.Digest, Name: s.name, Version: s.version, Now: time.Now()}
	for _, d := range slices.Sorted(maps.Keys(bundles)) {
		in.Bundles = append(in.Bundles, bundles[d])
	}
	return in, nil
}

// verifiesWith reports whether the index is signed by key already.
func (s *signed) verifiesWith(ctx context.Context, key trust.KeyID) (bool, error) {
	in, err := s.evidence(ctx)
	if hostabi.ReasonOf(err) == hostabi.ReasonRefNotFound { // nothing was ever pushed there
		return false, nil
	}
	if err != nil {
		return false, err
	}
	in.TrustKey = key
	switch v, err := trust.Evaluate(in); hostabi.ReasonOf(err) {
	case "":
		return v.Key == key, err
	case hostabi.ReasonUnsigned, hostabi.ReasonSignerUntrusted:
		return false, nil
	default:
		return false, err
	}
}

// check is the last look before a tag moves.
func (s *signed) check(ctx context.Context, key trust.KeyID) error {
	ok, err := s.verifiesWith(ctx, key)
	if err == nil && !ok {
		err = hostabi.Errorf(hostabi.ReasonBadAnswer, "%s does not list the signature of %s that was sent to it; no tag was moved", s.repository, s.root.Digest)
	}
	return err
}

// signer is who signed the index already, whoever that is; empty = nobody.
func (s *signed) signer(ctx context.Context) (trust.KeyID, error) {
	in, err := s.evidence(ctx)
	if err != nil {
		return "", err
	}
	v, err := trust.Evaluate(in)
	if hostabi.ReasonOf(err) == hostabi.ReasonUnsigned {
		return "", nil
	}
	return v.Key, err
}

// signatures are the bundles to attach: the signature, unless it is there, and what names the key before.
func (s *signed) signatures(ctx context.Context, key *trust.PrivateKey, there bool, k signFlags) (out []publish.Attachment, err error) {
	now := time.Now()
	if !there {
		b, err := trust.SignRelease(key, s.root.Digest, trust.Release{
			Name: s.name, Version: s.version, Repository: s.signedFor, CreatedAt: now, ABI: hostabi.ABI,
		})
		if err != nil {
			return nil, err
		}
		out = append(out, bundleOf(b, trust.ReleaseType, now))
	}
	if k.rotateFrom != "" {
		old, err := s.a.privateKey(ctx, k.rotateFrom, k.passphraseFile)
		if err != nil {
			return nil, err
		}
		b, err := trust.SignRotation(old, key.Key, s.root.Digest, s.signedFor, now)
		if err != nil {
			return nil, err
		}
		out = append(out, bundleOf(b, trust.RotationType, now))
	}
	return out, nil
}

// attestations read predicate files: JSON with predicateType and predicate; subjects in them do not count.
func (s *signed) attestations(key *trust.PrivateKey, files []string) (out []publish.Attachment, err error) {
	for _, name := range files {
		text, err := s.a.readFile(name, maxPredicate)
		if err != nil {
			return nil, err
		}
		var st trust.Statement
		if err := json.Unmarshal(text, &st); err != nil || st.PredicateType == "" || len(st.Predicate) == 0 {
			return nil, hostabi.Errorf(hostabi.ReasonUsage, "%s is no JSON with predicateType and predicate", name)
		}
		b, err := trust.SignAttestation(key, s.root.Digest, s.signedFor, st.PredicateType, st.Predicate)
		if err != nil {
			return nil, err
		}
		out = append(out, bundleOf(b, st.PredicateType, time.Now()))
	}
	return out, nil
}

// sboms are attached as they are, under the media type of their format.
func (a *app) sboms(files []string) (out []publish.Attachment, err error) {
	for _, name := range files {
		text, err := a.readFile(name, maxSBOM)
		if err != nil {
			return nil, err
		}
		var j struct {
			SPDX   string `json:"spdxVersion"`
			Format string `json:"bomFormat"`
		}
		if json.Unmarshal(text, &j) != nil || cmp.Or(j.SPDX, j.Format) == "" {
			return nil, hostabi.Errorf(hostabi.ReasonUsage, "%s is neither SPDX nor CycloneDX in JSON", name)
		}
		mediaType := "application/spdx+json"
		if j.SPDX == "" {
			mediaType = "application/vnd.cyclonedx+json"
		}
		out = append(out, publish.Attachment{Type: mediaType, Blob: text})
	}
	return out, nil
}

func bundleOf(b []byte, predicateType string, at time.Time) publish.Attachment {
	return publish.Attachment{Type: plugin.BundleType, Blob: b, Annotations: map[string]string{
		"dev.sigstore.bundle.content": "dsse-envelope", "dev.sigstore.bundle.predicateType": predicateType,
		plugin.OCICreated: at.UTC().Format(time.RFC3339),
	}}
}

// bundles reads the Sigstore bundles attached to an index.
func (a *app) bundles(ctx context.Context, client *registry.Client, ref string, index hostabi.Digest) (map[hostabi.Digest][]byte, error) {
	repo, err := client.Repository(ref)
	if err != nil {
		return nil, err
	}
	return install.Bundles(ctx, repo, ref, index, func(ctx context.Context, d plugin.OCIDescriptor) ([]byte, error) {
		return repo.Small(ctx, hostabi.Descriptor{MediaType: d.MediaType, Digest: hostabi.Digest(d.Digest), Size: d.Size})
	})
}

// index reads the document that a reference names; without tag and digest, that of the highest version.
func (a *app) index(ctx context.Context, client *registry.Client, ref string) (hostabi.Descriptor, plugin.OCIDocument, error) {
	var doc plugin.OCIDocument
	parsed, err := client.Parse(ref)
	if err != nil {
		return hostabi.Descriptor{}, doc, err
	}
	if parsed.Tag == "" && parsed.Digest == "" {
		tag, err := plugin.PickVersion(client.Tags(ctx, parsed.Name()), "")
		if err != nil {
			return hostabi.Descriptor{}, doc, err
		}
		ref = parsed.Name() + ":" + tag
	}
	root, err := client.ResolveFresh(ctx, ref)
	if err != nil {
		return root, doc, err
	}
	repo, err := client.Repository(ref)
	if err != nil {
		return root, doc, err
	}
	text, err := repo.Manifest(ctx, root)
	if err != nil {
		return root, doc, err
	}
	if json.Unmarshal(text, &doc) != nil || doc.ArtifactType != plugin.IndexType {
		return root, doc, hostabi.Errorf(hostabi.ReasonNotAPlugin, "%s is no plugin package (artifact type %q)", ref, doc.ArtifactType)
	}
	return root, doc, nil
}
