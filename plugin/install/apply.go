package install

import (
	"context"
	"errors"
	"path/filepath"
	"slices"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/plugin/store"
)

// history compares the version with the one that is active: older ones and other content under the same version
// are refused unless the user says so.
func (f *flow) history(ctx context.Context) error {
	r, err := f.o.Store.Receipt(f.m.Name)
	if err != nil || r.Source.Repository != f.src.Name() {
		return nil //nolint:nilerr // nothing to compare with; a damaged receipt is told before it is replaced
	}
	if f.active, err = f.o.Store.Installed(r); err != nil { // its files are damaged: it cannot go on
		f.active = nil
	}
	if r.Index == f.root.Digest || r.Dev != "" || f.req.Exact {
		return nil
	}
	switch order := plugin.CompareVersions(f.m.Version, r.PluginVersion); {
	case order < 0 && !f.req.Downgrade:
		return hostabi.Errorf(hostabi.ReasonDowngrade, "%s %s is older than %s, which is installed", f.m.Name, f.m.Version, r.PluginVersion).
			WithFix("ds plugin upgrade %s --to %s --allow-downgrade\nds plugin rollback %s", f.m.Name, f.m.Version, f.m.Name)
	case order == 0 && !f.req.Force:
		return hostabi.Errorf(hostabi.ReasonVersionMoved, "%s %s was %s, is now %s", f.m.Name, f.m.Version, r.Index, f.root.Digest).
			WithFix("ds plugin install %s@%s --force", f.src.Name(), f.root.Digest)
	}
	return nil
}

// agreed asks whoever wanted to see what was found.
func (f *flow) agreed() error {
	if f.req.Check == nil {
		return nil
	}
	artifacts, err := store.Artifacts(f.docs[f.root.Digest])
	if err != nil {
		return err
	}
	return f.req.Check(f.installed(), artifacts)
}

// apply asks, fetches, unpacks and records. Everything that another ds could see happens under the lock of the
// plugin, and the lock is never held over network or question.
func (f *flow) apply(ctx context.Context, p *plugin.Installed) (res Result, err error) {
	commit, waits := f.o.Consent.Ask(ctx, p, f.active)
	if waits != nil && hostabi.ReasonOf(waits) != hostabi.ReasonPluginInactive {
		return res, waits
	}
	r := f.receipt(p)
	var stages []staged
	defer func() {
		for _, s := range stages {
			if cerr := s.Close(); err == nil && cerr != nil {
				err = cerr
			}
		}
	}()
	for _, c := range f.chosen {
		s, err := f.unpack(ctx, p, c)
		if err != nil {
			return res, err
		}
		stages = append(stages, s)
	}
	unlock, err := f.o.Store.Lock(ctx, p.Name)
	if err != nil {
		return res, err
	}
	defer func() { _ = unlock() }()        // the lock ends with the descriptor
	if err := f.history(ctx); err != nil { // another ds may have been faster
		return res, err
	}
	if waits != nil && f.active == nil {
		return res, hostabi.Errorf(hostabi.ReasonLockHeld, "%s was removed by another ds meanwhile", p.Name)
	}
	for _, s := range stages {
		kind, err := s.Publish(p.Index, s.kind)
		if err != nil {
			return res, err
		}
		r.Kinds = append(r.Kinds, kind)
	}
	if err := f.keep(r); err != nil {
		return res, err
	}
	if f.verdict.Record != nil {
		if err := f.verdict.Record(ctx); err != nil {
			return res, err
		}
	}
	if waits != nil {
		if err := f.o.Store.Wait(r); err != nil {
			return res, err
		}
		return res, waits
	}
	if commit != nil {
		if err := commit(ctx); err != nil {
			return res, err
		}
	}
	if err := f.o.Store.Record(r); err != nil {
		return res, err
	}
	now, err := f.o.Store.Installed(r)
	return Result{Plugin: now, Active: f.active}, err
}

// receipt is the record of p; its kinds come as they are unpacked.
func (f *flow) receipt(p *plugin.Installed) *store.Receipt {
	return &store.Receipt{
		Name: p.Name, PluginVersion: p.Version, Index: p.Index, RequestDigest: p.RequestDigest, ABI: f.m.ABI, Pinned: f.req.Pin,
		Source: store.Source{Requested: f.req.Ref, Repository: p.Repository, Constraint: f.req.Constraint, Tag: f.tag, Via: f.req.Via},
		Trust:  f.trust(),
	}
}

// keep carries over what the active receipt says: what the user decided and, of the same index, kinds beside
// the chosen ones.
func (f *flow) keep(r *store.Receipt) error {
	old, err := f.o.Store.Receipt(r.Name)
	if hostabi.ReasonOf(err) == hostabi.ReasonPluginNotFound {
		return nil
	}
	if err != nil {
		if f.req.Force {
			return nil
		}
		return err
	}
	if old.Source.Repository != r.Source.Repository { // another plugin of this name
		return nil
	}
	r.Pinned, r.Disabled = r.Pinned || old.Pinned, old.Disabled
	if old.Index != r.Index {
		return nil
	}
	for _, k := range old.Kinds {
		if !slices.ContainsFunc(r.Kinds, func(n store.Kind) bool { return n.Kind == k.Kind }) {
			r.Kinds = append(r.Kinds, k)
		}
	}
	return nil
}

// staged is one kind that is unpacked, checked and sealed.
type staged struct {
	*store.Stage
	kind store.Kind
}

// unpack fetches one child into a stage.
func (f *flow) unpack(ctx context.Context, p *plugin.Installed, c child) (s staged, err error) {
	s.kind = store.Kind{Kind: c.kind, Child: hostabi.Digest(c.desc.Digest)}
	if s.Stage, err = f.o.Store.Stage(ctx, p.Name, c.kind); err != nil {
		return s, err
	}
	defer func() {
		if err != nil {
			_ = s.Close() // its rest is swept
		}
	}()
	if s.kind.Blob, err = f.extract(ctx, c.layer, s.Stage); err != nil {
		return s, err
	}
	text, err := f.m.JSON()
	if err != nil {
		return s, err
	}
	if err := write(s.Stage, "plugin.json", text); err != nil {
		return s, err
	}
	if err := f.evidence(s.Dir, c); err != nil {
		return s, err
	}
	assets, err := f.assets(ctx, s.Dir)
	if err != nil {
		return s, err
	}
	if err := f.check(ctx, p, c.kind, s.kind.Blob, filepath.Join(s.Dir, s.Program), assets); err != nil {
		return s, err
	}
	return s, s.Seal()
}

func write(s *store.Stage, name string, text []byte) error {
	out, err := s.Create(name)
	if err != nil {
		return err
	}
	_, err = out.Write(text)
	return errors.Join(err, out.Close())
}
