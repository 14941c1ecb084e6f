package store

import (
	"context"
	"path/filepath"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/plugin"
)

// Record makes r the active receipt: the previous one is copied to prev/ and the rename of the new one is the
// only switch. A version that waited for consent waits no longer. The caller holds Lock(r.Name).
func (s *Store) Record(r *Receipt) error {
	b, err := s.complete(r, "active", "prev")
	if err != nil {
		return err
	}
	waits, err := s.receipt("pending", r.Name, "no version of %s waits")
	if waits != nil && !r.same(waits) || hostabi.ReasonOf(err) == hostabi.ReasonPluginModified {
		if err := s.forget("pending", r.Name); err != nil { // before the switch: it is older than r
			return err
		}
	}
	active := s.receiptPath("active", r.Name)
	if old, err := atomicfile.ReadFile(s.o.FS, active, maxReceipt); err == nil && !sameVersion(old, r) {
		if err := atomicfile.WriteLocked(s.o.FS, s.receiptPath("prev", r.Name), old, 0o600); err != nil {
			return writeError(err)
		}
	}
	if err := s.switchTo(r, b); err != nil {
		return err
	}
	return s.forget("pending", r.Name)
}

// Wait keeps r beside the active receipt until Activate: a version that asks for more than was granted. The
// caller holds Lock(r.Name).
func (s *Store) Wait(r *Receipt) error {
	b, err := s.complete(r, "pending")
	if err != nil {
		return err
	}
	return writeError(atomicfile.WriteLocked(s.o.FS, s.receiptPath("pending", r.Name), b, 0o600))
}

// complete fills what the store knows and encodes r.
func (s *Store) complete(r *Receipt, dirs ...string) ([]byte, error) {
	if err := s.mkdirs(dirs...); err != nil {
		return nil, err
	}
	r.Version, r.DS = max(r.Version, receiptVersion), s.o.DS
	if r.InstalledAt.IsZero() {
		r.InstalledAt = s.o.Clock().UTC().Truncate(time.Second)
	}
	if len(r.Kinds) > 0 {
		var err error
		if r.Manifest, err = s.manifestDigest(r); err != nil {
			return nil, writeError(err)
		}
	}
	return r.encode()
}

// same reports whether two receipts are of one version from one source.
func (r *Receipt) same(o *Receipt) bool {
	return r.Index == o.Index && r.Source.Repository == o.Source.Repository
}

// sameVersion reports whether a receipt is of the version that r records again: then the previous version stays
// what it was.
func sameVersion(old []byte, r *Receipt) bool {
	var o Receipt
	return r.Index != "" && o.UnmarshalJSON(old) == nil && o.same(r)
}

func (s *Store) forget(dir string, name plugin.Name) error {
	return s.forgetFile(s.receiptPath(dir, name))
}

// Pending is the receipt of the version that waits for consent; PLUGIN_NOT_FOUND when none does. One that was
// activated just before a crash waits no more.
func (s *Store) Pending(name plugin.Name) (*Receipt, error) {
	const absent = "no version of %s waits for consent"
	r, err := s.receipt("pending", name, absent)
	if err != nil {
		return nil, err
	}
	if active, err := s.Receipt(name); err == nil && active.same(r) {
		return nil, hostabi.Errorf(hostabi.ReasonPluginNotFound, absent, name)
	}
	return r, nil
}

// waiting is the version that waits beside r, or empty.
func (s *Store) waiting(r *Receipt) string {
	p, err := s.receipt("pending", r.Name, "%s")
	if err != nil || p.same(r) {
		return ""
	}
	return p.PluginVersion
}

// Activate makes the version that waits the active one, if it still is the one with this index.
func (s *Store) Activate(ctx context.Context, name plugin.Name, index hostabi.Digest) (*Receipt, error) {
	unlock, err := s.Lock(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unlock() }() // the lock ends with the descriptor
	r, err := s.Pending(name)
	if err != nil {
		return nil, err
	}
	if r.Index != index {
		return nil, hostabi.Errorf(hostabi.ReasonLockHeld, "another ds has just fetched %s %s", name, r.PluginVersion)
	}
	if active, err := s.Receipt(name); err == nil {
		r.Pinned, r.Disabled = active.Pinned, active.Disabled
	}
	if err := s.Verify(r); err != nil {
		return nil, err
	}
	return r, s.Record(r)
}

// Rollback makes the previous version the active one and the other way round, and pins it; it needs no network.
func (s *Store) Rollback(ctx context.Context, name plugin.Name) (from, to *Receipt, err error) {
	unlock, err := s.Lock(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = unlock() }() // the lock ends with the descriptor
	to, err = s.Previous(name)
	if err != nil {
		return nil, nil, err
	}
	from, err = s.Receipt(name)
	if err != nil && hostabi.ReasonOf(err) != hostabi.ReasonPluginModified { // a damaged one is why people come here
		return nil, nil, err
	}
	if err := s.Verify(to); err != nil {
		return nil, nil, err
	}
	to.Pinned = true
	b, err := s.complete(to)
	if err != nil {
		return nil, nil, err
	}
	// The switch comes first: after a crash between the two writes the previous version is active, as was asked.
	if err := s.switchTo(to, b); err != nil {
		return nil, nil, err
	}
	if from == nil {
		return nil, to, nil
	}
	if b, err = from.encode(); err == nil {
		err = writeError(atomicfile.WriteLocked(s.o.FS, s.receiptPath("prev", name), b, 0o600))
	}
	return from, to, err
}

// Previous is the receipt that rollback goes to; PLUGIN_NOT_FOUND when no version was replaced.
func (s *Store) Previous(name plugin.Name) (*Receipt, error) {
	if _, err := s.Receipt(name); hostabi.ReasonOf(err) == hostabi.ReasonPluginNotFound {
		return nil, err
	}
	return s.receipt("prev", name, "no earlier version of %s is kept")
}

// Change edits the active receipt of name, such as its pin.
func (s *Store) Change(ctx context.Context, name plugin.Name, f func(*Receipt)) (*Receipt, error) {
	if _, err := s.Receipt(name); err != nil { // makes no directories for a name that nobody has
		return nil, err
	}
	unlock, err := s.Lock(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unlock() }() // the lock ends with the descriptor
	r, err := s.Receipt(name)
	if err != nil {
		return nil, err
	}
	if r.Version > receiptVersion {
		return nil, hostabi.Errorf(hostabi.ReasonConfigVersion, "%s: its receipt was written by a newer ds", name)
	}
	f(r)
	b, err := r.encode()
	if err != nil {
		return nil, err
	}
	return r, writeError(atomicfile.WriteLocked(s.o.FS, s.receiptPath("active", name), b, 0o600))
}

// Verify hashes every file of the version that r names; PLUGIN_MODIFIED when one is not what was installed.
func (s *Store) Verify(r *Receipt) error {
	for _, k := range r.Kinds {
		dir := filepath.Join(s.o.Dir, "store", k.Dir)
		list, err := readFiles(s.o.FS, dir, k.Files)
		if err != nil || !unchanged(s.o.FS, dir, list) {
			return hostabi.Errorf(hostabi.ReasonPluginModified, "%s %s: its %s files are not as they were installed", r.Name, r.PluginVersion, k.Kind).
				WithFix("ds plugin install %s@%s --force", r.Source.Repository, r.Index)
		}
	}
	return nil
}
