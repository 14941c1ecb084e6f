package state

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
)

// Check finds damaged files and what killed processes left. With repair a damaged file is moved aside, so that
// its owner starts afresh, and leftovers are removed; both under the lock of the owner.
func (s *Store) Check(ctx context.Context, repair bool) (found []atomicfile.Problem, err error) {
	if !s.disk {
		return nil, nil
	}
	names, err := s.o.FS.ReadDir(filepath.Join(s.o.Dir, "kv"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, storeError("all plugins", err)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return found, err
		}
		path := filepath.Join(s.o.Dir, "kv", name)
		if owner := hostabi.PluginName(strings.TrimSuffix(name, ".json")); owner.Valid() && string(owner) != name {
			if _, err := s.load(owner); hostabi.ReasonOf(err) == hostabi.ReasonStateCorrupt {
				found = append(found, s.problem(ctx, owner, path, "does not parse", repair, s.moveAside))
			}
			continue
		}
		owner, rest, _ := strings.Cut(strings.TrimPrefix(name, "."), ".")
		if strings.HasPrefix(name, ".") && strings.HasPrefix(rest, "json.") && strings.HasSuffix(rest, atomicfile.TempSuffix) {
			found = append(found, s.problem(ctx, hostabi.PluginName(owner), path, "was left by a killed process", repair, s.removeLeft))
		}
	}
	return found, nil
}

func (s *Store) problem(ctx context.Context, owner hostabi.PluginName, path, what string, repair bool, mend func(owner hostabi.PluginName, path string) error) atomicfile.Problem {
	p := atomicfile.Problem{Path: path, What: what, Fix: "ds doctor state --fix"}
	if !repair {
		return p
	}
	unlock, err := s.lock(ctx, owner)
	if err == nil {
		err = errors.Join(mend(owner, path), unlock())
	}
	if err != nil {
		p.What += " (not repaired: " + err.Error() + ")"
		return p
	}
	p.What, p.Fix = what+" (repaired)", ""
	return p
}

// moveAside renames a file that still is damaged now that the lock is held.
func (s *Store) moveAside(owner hostabi.PluginName, path string) error {
	if _, err := s.load(owner); hostabi.ReasonOf(err) != hostabi.ReasonStateCorrupt {
		return err
	}
	return s.o.FS.Rename(path, path+".corrupt-"+strconv.FormatInt(s.o.Clock().Unix(), 10))
}

// removeLeft removes a temporary file: whoever holds the lock has none.
func (s *Store) removeLeft(_ hostabi.PluginName, path string) error {
	if err := s.o.FS.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
