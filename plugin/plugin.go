// Package plugin holds the words about plugins: names, kinds, the plugin manifest, what is installed, one
// invocation and how it ended. It never touches disk or network. Start with Manifest.
package plugin

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

// Name names a plugin.
type Name = hostabi.PluginName

// Kind says what runs: a native program or a WASM module.
type Kind string

// The kinds.
const (
	Native Kind = "native"
	WASM   Kind = "wasm"
)

// Mode says how a native program is started and talks to the host (native.md section 2).
type Mode string

// The modes.
const (
	Direct    Mode = "direct"    // frames on DS_HOST_FD; default
	GoPlugin  Mode = "goplugin"  // hashicorp/go-plugin, ds.plugin.v1
	Protocol1 Mode = "protocol1" // plugins of the original DS
)

// Installed is one plugin that can be run. Values returned by a store are not changed afterwards.
type Installed struct {
	Name     Name
	Version  string
	Manifest *Manifest // never nil; a hand-placed file without plugin.yaml has one without capabilities

	Repository    string         // grants key: "host/repository", "oci-layout:/abs", "dir:/abs" or "file:/abs/ds-x"
	Signer        string         // "ed25519:<hex>" or "none"
	Index         hostabi.Digest // OCI index of the version; for dir: and file: the digest of what is consented to
	RequestDigest hostabi.Digest
	Level         string // trust level: signed, pinned, legacy-signed, unsigned, local
	HandPlaced    bool
	Pinned        bool
	Disabled      bool
	Pending       string // version that waits for consent, else empty
	InstalledAt   time.Time
	Requested     string      // reference as the user wrote it
	News          *SignerNews // while it is installed; nil = nothing new

	Programs []Program // one per kind that is held
	Program  *Program  // the one chosen for this run, opened; set by manager on its own copy
}

// SignerNews is what an installation finds out about the signer and consent has to know.
type SignerNews struct {
	New         bool      // Repository never had this signer: the user has to accept it
	RotatedFrom string    // signer before, who named this one; its grants go on
	SignedAt    time.Time // as the signature says
}

// Program is the runnable file of one kind.
type Program struct {
	Kind   Kind
	Mode   Mode // native only
	Dir    string
	Path   string // absolute
	Assets string // directory mounted at /app, or empty
	Digest hostabi.Digest
	Size   int64

	File *os.File // open and verified; set by Store.Open, closed by manager after the run
}

// Find is the program of kind k, or nil.
func (p *Installed) Find(k Kind) *Program {
	for i := range p.Programs {
		if p.Programs[i].Kind == k {
			return &p.Programs[i]
		}
	}
	return nil
}

// The values of Invocation.Kind.
const (
	KindRun      = "run"
	KindComplete = "complete"
	KindEvent    = "event"
)

// Invocation is one run. It is immutable once passed to manager, which fills what is empty in its own copy.
type Invocation struct {
	ID   string   // 32 hex
	Args []string // the words after the plugin's name, unchanged
	Kind string   // KindRun, KindComplete, KindEvent

	Command string            // command path of the manifest that Args select, "bundle create"
	Typed   []Typed           // what the user typed for path, ref, url and digest arguments: scope args
	Paths   []hostabi.PathArg // filled by runtime/wasm

	Caller Name   // calling plugin, empty at top level
	Chain  []Name // plugins above this one, outermost first
	// Hops is what the events of this run carry: one more than those it was given. It grows while a handler gets
	// further events; nil = 0.
	Hops func() uint32

	TraceID     string // 32 hex
	TraceParent string // W3C trace context

	Stdin          io.Reader // *os.File passes through untouched; nil = empty
	Stdout, Stderr io.Writer
	Dir            string   // working directory, absolute
	Env            []string // the host's environment, from which the Box picks
	Terminal       hostabi.Terminal
	NoInput        bool
	Offline        bool
	LogLevel       string

	Backend  Kind             // wanted kind; empty = configuration and manifest decide
	Deadline time.Time        // zero = none
	Signals  <-chan os.Signal // to forward; nil = none
	Blobs    []hostabi.Digest // made readable by the caller for this call
}

// Typed is one value that the user typed for a declared argument or flag.
type Typed struct {
	Index int    // into Args; for --flag=value the index of that word
	Type  string // path, ref, url, digest
	Mode  string // read, write, readwrite; type path only
	Value string
}

// ExitError says that the program ran and ended with a code other than 0, or by a signal (Code 128+n).
type ExitError struct {
	Code   int
	Signal int
}

func (e *ExitError) Error() string { return fmt.Sprintf("exit status %d", e.Code) }

// Stage is where a run failed.
type Stage string

// The stages of a run, in order.
const (
	StageFind    Stage = "find"
	StageGrant   Stage = "grant"
	StagePrepare Stage = "prepare"
	StageRun     Stage = "run"
)

// RunError says that ds could not run the plugin or stopped it. Err is or wraps *hostabi.Error.
type RunError struct {
	Name  Name
	Stage Stage
	Err   error
}

func (e *RunError) Error() string { return string(e.Name) + ": " + e.Err.Error() }

// Unwrap is the cause.
func (e *RunError) Unwrap() error { return e.Err }
