package store

import (
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

// receiptVersion is the version of receipts that this ds writes.
const receiptVersion = 1

// Receipt records one installed plugin (install-trust.md section 7). Members that this ds does not know
// survive a rewrite.
type Receipt struct {
	Version       int            `json:"version"`
	Name          plugin.Name    `json:"name"`
	PluginVersion string         `json:"plugin_version"`
	Source        Source         `json:"source"`
	Index         hostabi.Digest `json:"index"`
	Kinds         []Kind         `json:"kinds"`
	Manifest      hostabi.Digest `json:"manifest,omitempty"` // of plugin.json of the first kind
	Trust         Trust          `json:"trust"`
	RequestDigest hostabi.Digest `json:"request_digest"`
	ABI           string         `json:"abi"`
	Pinned        bool           `json:"pinned"`
	Disabled      bool           `json:"disabled"`
	InstalledAt   time.Time      `json:"installed_at"`
	DS            string         `json:"ds"`
	Dev           string         `json:"dev,omitempty"` // absolute plugin directory of a development install

	unknown map[string]json.RawMessage
}

// Source says where a plugin came from.
type Source struct {
	Requested  string `json:"requested"` // as the user wrote it
	Repository string `json:"repository"`
	Constraint string `json:"constraint,omitempty"`
	Tag        string `json:"tag,omitempty"`
	Via        string `json:"via,omitempty"`
}

// Kind is one held program.
type Kind struct {
	Kind  plugin.Kind    `json:"kind"`
	Child hostabi.Digest `json:"child"`
	Blob  hostabi.Digest `json:"blob"`
	Files hostabi.Digest `json:"files"` // digest of files.json
	Dir   string         `json:"dir"`   // below store/
}

// Trust says why the plugin was accepted.
type Trust struct {
	Level         string    `json:"level"`
	Key           string    `json:"key,omitempty"` // "ed25519:<hex>"; none = unsigned
	Rule          string    `json:"rule,omitempty"`
	Bundle        string    `json:"bundle,omitempty"`
	AllowUnsigned bool      `json:"allow_unsigned,omitempty"`
	VerifiedAt    time.Time `json:"verified_at"`
}

// LevelUnsigned and LevelLocal are trust levels that need no signature.
const (
	LevelUnsigned = "unsigned"
	LevelLocal    = "local"
)

// plain is Receipt without its methods.
type plain Receipt

// MarshalJSON writes the known members and, after them, the unknown ones.
func (r Receipt) MarshalJSON() ([]byte, error) {
	known, err := json.Marshal(plain(r))
	if err != nil || len(r.unknown) == 0 {
		return known, err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(known, &all); err != nil {
		return nil, err
	}
	for k, v := range r.unknown {
		if _, ok := all[k]; !ok {
			all[k] = v
		}
	}
	return json.Marshal(all)
}

// UnmarshalJSON keeps what it does not know.
func (r *Receipt) UnmarshalJSON(b []byte) error {
	var p plain
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	var all, known map[string]json.RawMessage
	if err := json.Unmarshal(b, &all); err != nil {
		return err
	}
	k, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(k, &known); err != nil {
		return err
	}
	maps.DeleteFunc(all, func(name string, _ json.RawMessage) bool { _, ok := known[name]; return ok })
	*r = Receipt(p)
	if len(all) > 0 {
		r.unknown = all
	}
	return nil
}

// check says what makes a decoded receipt unusable.
func (r *Receipt) check(name plugin.Name) error {
	if r.Name != name {
		return fmt.Errorf("it is the receipt of %q", string(r.Name))
	}
	if r.Version < 1 {
		return fmt.Errorf("version %d", r.Version)
	}
	if r.Dev != "" {
		return nil
	}
	if !r.Index.Valid() || len(r.Kinds) == 0 {
		return fmt.Errorf("it has no index or no kinds")
	}
	for _, k := range r.Kinds {
		if k.Dir != dirName(r.Index, k.Kind) {
			return fmt.Errorf("directory %q", k.Dir)
		}
	}
	return nil
}

func (r *Receipt) encode() ([]byte, error) {
	b, err := json.MarshalIndent(r, "", "  ")
	return append(b, '\n'), err
}
