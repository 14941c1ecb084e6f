package store

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/plugin"
)

// owner says which plugin keeps state and cache claims under a name: a name may come from another source after
// its plugin was removed, and nobody inherits from a stranger.
type owner struct {
	Source string `json:"source"`
	Signer string `json:"signer"`
}

// Claim is called before p uses what is kept under its name. If that was another plugin's, from another source
// or of another signer, retire is called first; it puts aside what is kept. Removing a plugin keeps its claim.
func (s *Store) Claim(ctx context.Context, p *plugin.Installed, retire func(context.Context) error) error {
	want := owner{p.Repository, p.Signer}
	path := s.receiptPath("owners", p.Name)
	if have, err := s.owner(path); err == nil && have == want {
		return nil
	}
	if err := s.mkdirs("owners"); err != nil {
		return s.unclaimed(path, err)
	}
	unlock, err := s.Lock(ctx, p.Name)
	if err != nil {
		return s.unclaimed(path, err)
	}
	defer func() { _ = unlock() }() // the lock ends with the descriptor
	have, err := s.owner(path)
	switch {
	case errors.Is(err, fs.ErrNotExist): // the first one
	case err == nil && have == want: // meanwhile
		return nil
	default: // another one, or nobody knows
		if err := retire(ctx); err != nil {
			return err
		}
	}
	b, err := json.Marshal(want)
	if err == nil {
		err = writeError(atomicfile.WriteLocked(s.o.FS, path, append(b, '\n'), 0o600))
	}
	return s.unclaimed(path, err)
}

// Disown forgets whose a name was; what was kept under it is gone.
func (s *Store) Disown(ctx context.Context, name plugin.Name) error {
	unlock, err := s.Lock(ctx, name)
	if err != nil {
		return err
	}
	defer func() { _ = unlock() }() // the lock ends with the descriptor
	return s.forget("owners", name)
}

// unclaimed forgives that a first claim cannot be written: there is nothing to inherit.
func (s *Store) unclaimed(path string, err error) error {
	if err == nil {
		return nil
	}
	if _, serr := s.o.FS.Lstat(path); errors.Is(serr, fs.ErrNotExist) {
		s.o.Log.Debug("claim not written", "path", filepath.Base(path), "err", err)
		return nil
	}
	return err
}

func (s *Store) owner(path string) (o owner, err error) {
	b, err := atomicfile.ReadFile(s.o.FS, path, 64<<10)
	if err == nil {
		err = json.Unmarshal(b, &o)
	}
	return o, err
}
