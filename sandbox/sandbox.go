// Package sandbox turns what a plugin requested, what the user granted and the admin's ceiling into the Box
// of one run (capabilities.md). Box.Check is the one function that decides; nothing here enforces anything
// itself: host gates calls with it, runtime/wasm builds mounts and runtime/native kernel rules from it.
package sandbox

import (
	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

// Box is the effective set of capabilities of one run: requested and granted and within the ceiling and not
// denied. It is immutable and safe for concurrent use.
type Box struct{ o BoxOptions }

// Scopes is what is granted for one capability.
type Scopes struct {
	Scope   []string
	Quota   int64 // bytes, 0 = none
	Sockets bool
}

// BoxOptions is everything a Box is made of.
type BoxOptions struct {
	Plugin     *plugin.Installed  // its Manifest holds the requests
	Invocation *plugin.Invocation // typed values, working directory, environment
	Granted    map[hostabi.Capability]Scopes
	Denied     map[hostabi.Capability][]string
	Policy     *Policy                        // nil = no ceiling
	Settings   func(key string) (string, bool) // values set by the user, for ${settings.NAME.key}
	Home       string
	Protected  []string // directories of ds that are never mounted: config, data, state, cache
	// Inherited, when not nil, bounds scope args in a nested call: only what it allows counts.
	Inherited *Box

	MemoryDefault, MemoryMax int64
	TimeMax                  int64 // ns, 0 = none
}

// Policy is /etc/ds/policy.yaml, the admin's ceiling.
type Policy struct{}

// NewBox computes the effective set; it fails with USAGE or CONFIG_VALUE for a scope that cannot be used.
func NewBox(o BoxOptions) (*Box, error) { return &Box{o: o}, nil }

// Check decides whether the run may use resource under c. The resource is canonical: a key, a
// "host/repository", an origin with path, an absolute clean path, a topic, "owner:key", "name/command", a
// prompt kind, or for blobs "own", "any" or "artifact:host/repository". The error is CAPABILITY_DENIED or
// POLICY_DENIED with metadata capability, resource, plugin and a Fix that, pasted, allows it.
func (b *Box) Check(c hostabi.Capability, resource string) error {
	return hostabi.Errorf(hostabi.ReasonCapabilityDenied, "%s %s", c, resource)
}

// Has reports whether c has any effective scope.
func (b *Box) Has(c hostabi.Capability) bool { return false }

// Wildcard reports whether resource is allowed only through a pattern whose host part is a wildcard; then
// connections are limited to public addresses (hostabi.WithPublicOnly).
func (b *Box) Wildcard(c hostabi.Capability, resource string) bool { return false }

// Grants is the effective set as Describe reports it, in the order of hostabi.Capabilities.
func (b *Box) Grants() []hostabi.Grant { return nil }

// Quota is the effective byte quota of c, 0 = none.
func (b *Box) Quota(c hostabi.Capability) int64 { return 0 }

// Sockets reports whether net.http was granted with sockets.
func (b *Box) Sockets() bool { return false }

// Env picks from the host's environment ("K=V") what env.read grants.
func (b *Box) Env(host []string) []string { return nil }

// Limits is the effective memory (never 0), time (0 = none), tmp and HTTP limits.
func (b *Box) Limits() plugin.Limits { return plugin.Limits{Memory: 256 << 20} }

// Mount is one directory that fs.read or fs.write opens to the plugin.
type Mount struct {
	Host     string   // absolute literal directory; one os.Root is opened there
	Guest    string   // guest directory, "/cwd/dist"; native plugins see Host
	Name     string   // not empty: only this name in Host is visible (a file argument)
	Patterns []string // globs relative to Host; empty = everything below
	Write    bool
	Follow   bool // symlinks inside Host are followed (scopes of the form prefix/**)
	Create   bool // the typed path does not exist yet and may be created
}

// Mounts is what the run may see of the file system, ordered by Guest; a writable scope inside a readable
// one is listed apart.
func (b *Box) Mounts() []Mount { return nil }

// Paths translates the path arguments of the invocation into the namespace of a WASM guest and returns argv
// words with them replaced ("/args/2/name" outside the working directory).
func (b *Box) Paths() (args []string, paths []hostabi.PathArg) { return nil, nil }

// Denials lists what Check refused so far, each once, for the notes after a failed run.
func (b *Box) Denials() []Denial { return nil }

// Denial is one refused use.
type Denial struct {
	Cap      hostabi.Capability
	Resource string
	Why      string // "not granted", "NAME does not ask for it", "refused by /etc/ds/policy.yaml"
	Fix      string
}
