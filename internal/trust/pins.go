package trust

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
)

const (
	maxPins     = 16 << 20
	pinsVersion = 1
	lockWait    = 30 * time.Second
)

// How a pin came to be.
const (
	HowPrompt   = "prompt"
	HowFlag     = "flag"
	HowLock     = "lock"
	HowRule     = "rule"
	HowRotation = "rotation"
)

// Pin is what was seen of one repository: the key that signs it and the highest version.
type Pin struct {
	Key           KeyID          `json:"key"`
	SPKI          []byte         `json:"spki"` // PKIX DER
	FirstSeen     time.Time      `json:"first_seen"`
	How           string         `json:"how"`
	Highest       string         `json:"highest,omitempty"`
	HighestDigest hostabi.Digest `json:"highest_digest,omitempty"`
}

// key is the pinned key, nil if the record is damaged: then nothing verifies by it.
func (p *Pin) key() *Key {
	k, err := NewKey(p.SPKI)
	if err != nil || k.ID() != p.Key {
		return nil
	}
	return k
}

// Pins are the pins of all repositories, in <data>/trust/pins.json. It is safe for goroutines and processes.
// A file that cannot be read is an error, never no pins.
type Pins struct {
	fs   atomicfile.FS
	path string
}

// OpenPins names the file; it is read when it is needed and made with the first pin.
func OpenPins(path string) *Pins { return &Pins{atomicfile.OS(), path} }

type pinsFile struct {
	Version int             `json:"version"`
	Pins    map[string]*Pin `json:"repositories"`
}

// All is every pin by repository.
func (p *Pins) All() (map[string]*Pin, error) {
	b, err := atomicfile.ReadFile(p.fs, p.path, maxPins)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]*Pin{}, nil
	}
	if err != nil {
		return nil, p.failed(err)
	}
	return p.decode(b)
}

// Get is the pin of a repository, nil if there is none.
func (p *Pins) Get(repository string) (*Pin, error) {
	all, err := p.All()
	return all[repository], err
}

// Edit changes pins under the lock of their file. fn gets all of them and may change, add and delete.
func (p *Pins) Edit(ctx context.Context, fn func(all map[string]*Pin) error) error {
	if err := atomicfile.MkdirAll(p.fs, filepath.Dir(p.path), 0o700); err != nil {
		return p.failed(err)
	}
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	err := atomicfile.Edit(ctx, p.fs, p.path, func(old []byte) ([]byte, error) {
		all := map[string]*Pin{}
		if old != nil {
			var err error
			if all, err = p.decode(old); err != nil {
				return nil, err
			}
		}
		if err := fn(all); err != nil {
			return nil, err
		}
		if old == nil && len(all) == 0 {
			return nil, nil
		}
		b, err := json.MarshalIndent(pinsFile{pinsVersion, all}, "", "  ")
		return append(b, '\n'), err
	})
	if errors.Is(err, atomicfile.ErrLocked) {
		return hostabi.Errorf(hostabi.ReasonLockHeld, "%s is being changed by another ds", p.path)
	}
	return p.failed(err)
}

func (p *Pins) decode(b []byte) (map[string]*Pin, error) {
	var f pinsFile
	err := json.Unmarshal(b, &f)
	if err == nil && f.Version != pinsVersion {
		err = errors.New("it is of another version")
	}
	for _, pin := range f.Pins {
		if err == nil && (pin == nil || pin.key() == nil) {
			err = errors.New("a pin does not fit its key")
		}
	}
	if err != nil {
		return nil, hostabi.Errorf(hostabi.ReasonStateCorrupt, "%s is damaged: %w", p.path, err)
	}
	if f.Pins == nil {
		f.Pins = map[string]*Pin{}
	}
	return f.Pins, nil
}

func (p *Pins) failed(err error) error {
	if err == nil || hostabi.ReasonOf(err) != "" {
		return err
	}
	reason := hostabi.ReasonInternal
	if errors.Is(err, fs.ErrPermission) {
		reason = hostabi.ReasonReadOnly
	}
	return hostabi.Errorf(reason, "pins: %w", err)
}
