package hostabi

import (
	"iter"
	"slices"
	"strings"
	"time"
)

// Capability is one of the sixteen rights of capabilities.md section 2.
type Capability string

// The capabilities.
const (
	ConfigRead      Capability = "config.read"
	SecretRead      Capability = "secret.read"
	EnvRead         Capability = "env.read"
	NetHTTP         Capability = "net.http"
	FSRead          Capability = "fs.read"
	FSWrite         Capability = "fs.write"
	CacheRead       Capability = "cache.read"
	CacheWrite      Capability = "cache.write"
	RegistryPull    Capability = "registry.pull"
	RegistryPush    Capability = "registry.push"
	EventsPublish   Capability = "events.publish"
	EventsSubscribe Capability = "events.subscribe"
	StateRead       Capability = "state.read"
	StateWrite      Capability = "state.write"
	PluginsCall     Capability = "plugins.call"
	TermPrompt      Capability = "term.prompt"
)

// Capabilities lists all sixteen in the order of capabilities.md.
func Capabilities() []Capability {
	return []Capability{
		ConfigRead, SecretRead, EnvRead, NetHTTP, FSRead, FSWrite, CacheRead, CacheWrite, RegistryPull,
		RegistryPush, EventsPublish, EventsSubscribe, StateRead, StateWrite, PluginsCall, TermPrompt,
	}
}

// PluginName names a plugin: [a-z][a-z0-9-]{0,31}. The binary is ds-NAME, the module NAME.wasm.
type PluginName string

// Valid reports whether n has the form of a plugin name.
func (n PluginName) Valid() bool {
	if n == "" || len(n) > 32 || n[0] < 'a' || n[0] > 'z' {
		return false
	}
	return strings.Trim(string(n), "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// Platform is an OCI platform; zero means "the host's" in requests.
type Platform struct {
	OS, Architecture, Variant, OSVersion string
}

// String is OS/ARCH or OS/ARCH/VARIANT, empty for the zero value.
func (p Platform) String() string {
	if p == (Platform{}) {
		return ""
	}
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// ParsePlatform reads OS/ARCH[/VARIANT]; the error has reason USAGE.
func ParsePlatform(s string) (Platform, error) {
	parts := strings.Split(s, "/")
	if len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, "") {
		return Platform{}, Errorf(ReasonUsage, "platform %q is not OS/ARCH or OS/ARCH/VARIANT", clip(s, 80))
	}
	p := Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p, nil
}

// Descriptor names content with its type and size (OCI image-spec descriptor.md). Ref is the canonical
// reference it was resolved from, if any.
type Descriptor struct {
	MediaType    string
	Digest       Digest
	Size         int64
	ArtifactType string
	Annotations  map[string]string
	Platform     *Platform
	Ref          string
}

// BlobInfo is what the cache knows of one blob. Times are zero when unknown or never.
type BlobInfo struct {
	Digest                 Digest
	Size                   int64
	MediaType              string
	Created, Used, Expires time.Time
	Pinned                 bool
	Sources                []string // repositories it was pulled from
	Annotations            map[string]string
}

// CacheUsage is the size of the cache in bytes and entries. MaxBytes limits DiskBytes; 0 = no limit.
type CacheUsage struct {
	Bytes, DiskBytes, Entries, MaxBytes, PinnedBytes int64
}

// EvictOptions choose what an eviction removes; zero fields do not restrict.
type EvictOptions struct {
	OlderThan   time.Duration // unused for so long
	MaxBytes    int64         // down to this size
	ExpiredOnly bool
	DryRun      bool
	Policy      bool // instead of the fields above: what the host would evict by its configuration
}

// Verdict is the result of hashing one cached blob.
type Verdict struct {
	Digest  Digest
	OK      bool
	Problem string
}

// ConfigValue is one configuration value. JSON is empty for a secret in a listing.
type ConfigValue struct {
	Key    string
	JSON   string
	Origin string // "default", "file ~/.config/ds/config.yaml:3:9", "env DS_…", "flag --…"
	Secret bool
}

// StateEntry is one value of the state store. Revision grows with every write of the key.
type StateEntry struct {
	Owner                     PluginName
	Key                       string
	Value                     []byte
	Revision                  uint64
	Created, Updated, Expires time.Time
}

// Transfer says how one blob of a pull or push got there: network, cache, exists or mounted.
type Transfer struct {
	Descriptor Descriptor
	How        string
}

// The values of Transfer.How.
const (
	ByNetwork = "network"
	FromCache = "cache"
	AtTarget  = "exists"
	ByMount   = "mounted"
)

// Progress is one report about one item. Total 0 = unknown.
type Progress struct {
	ID, Label      string
	Current, Total int64
	State          string    // run, done or fail
	Transfer       *Transfer // set in the last report of a blob of a pull or push
}

// The values of Progress.State.
const (
	ProgressRun  = "run"
	ProgressDone = "done"
	ProgressFail = "fail"
)

// Prompt is one question to the user. Kind is confirm, line, secret or choose.
type Prompt struct {
	Kind, Text string
	Choices    []string
	Fallback   string     // answer when nobody can be asked
	Plugin     PluginName // set by the host
}

// Rows is one batch of structured output; the host renders it at End.
type Rows struct {
	Columns []string // "key" or "key=HEADER", with ",wide" (shown by --format wide only) and ",size" (bytes), in order
	JSON    []string // one JSON object a row
	End     bool
	Single  bool   // the one row is an object of its own, not a list of one
	Format  string // --format typed after the plugin's name, else empty
}

// PullOptions narrow a pull. The zero value pulls the host's platform with all blobs.
type PullOptions struct {
	Platforms     []Platform
	AllPlatforms  bool
	MediaTypes    []string // only layers of these types; empty = all
	ManifestsOnly bool
	Referrers     bool
}

// Grant is one capability as Describe reports it.
type Grant struct {
	Cap         Capability
	Allow, Deny []string
	Quota       int64 // bytes, 0 = none
	Sockets     bool
}

// Terminal is what the host knows of the user's terminal.
type Terminal struct {
	StdinTTY, StdoutTTY, StderrTTY bool
	Columns, Rows                  int
	Color, Prompts                 bool
	Format, Progress               string // the user's --format and --progress
}

// PathArg is one path argument of an invocation.
type PathArg struct {
	Index int    // into argv
	Typed string // as the user wrote it
	Path  string // in the plugin's namespace
	Write bool
}

// Seq2 is what streaming accessors return: values until an error, which is the last pair.
type Seq2[T any] = iter.Seq2[T, error]
