// Package registry is the only package that speaks the OCI distribution protocol or reads an OCI layout
// directory. It moves graphs of manifests and blobs between remote repositories, layouts and a
// hostabi.Sink that the caller gives. It knows neither the cache nor plugins and decides no policy. Start
// with New and Client.Pull.
package registry

import (
	"context"
	"errors"
	"io"
	"iter"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/internal/egress"
	"github.com/delivery-station/ds/internal/scrub"
)

// Client moves content between registries, layouts and sinks. It is made once per process and safe for
// concurrent use.
type Client struct {
	o      Options
	creds  *credentialSources
	fs     atomicfile.FS
	pauses pauses
	mounts mounts

	buffers sync.Pool // of *[]byte, copyBuffer long
	now     func() time.Time
	sleep   func(context.Context, time.Duration) error

	mu       sync.Mutex
	hosts    map[string]*host
	repos    map[string]*remoteRepo
	networks map[[4]string]*egress.Transport
}

// Options are resolved values; New reads no file and no environment. The zero value works for public
// registries without credentials.
type Options struct {
	// DefaultRegistry is what short names are joined to: "ghcr.io/delivery-station" or "oci-layout:DIR".
	DefaultRegistry string
	// Mirrors are mirrors of the host of DefaultRegistry, as in Host.Mirrors.
	Mirrors []string
	// Insecure are hosts, with port if any, that are reached by plain HTTP. Loopback hosts always are.
	Insecure []string
	// Hosts are settings per host; the first match wins.
	Hosts []Host
	// Concurrency is the number of blobs in flight per host; 0 means 6.
	Concurrency int
	Timeouts    Timeouts
	Retry       Retry
	// Credentials come before CredentialFiles, which are tried in order and have docker's config format.
	Credentials     []Credential
	CredentialFiles []string
	// AuthFile is where Login stores what no credential helper takes; one of CredentialFiles. Empty forbids it.
	AuthFile string
	Proxy    Proxy
	// Offline forbids every request and every name lookup.
	Offline bool
	// Refs remembers what tags pointed to, for offline use; nil remembers nothing.
	Refs Refs
	// Secrets learns every credential and token before it is sent, and keeps them out of the text of servers.
	// nil = one of the client's own.
	Secrets *scrub.Scrubber
	// Home replaces ~ in layout paths, Dir is where relative ones begin; empty = the working directory.
	Home, Dir string
	// MountDir is where the client remembers which repositories hold a blob; empty = for this process only.
	MountDir string
	// Epoch is the time of every entry of a tar that is written; the zero time is 1970.
	Epoch     time.Time
	UserAgent string
	// Warn is told once what makes a host less safe, and when a mirror had to name the content of a tag.
	Warn func(text string)
	// Observer is told what the client does, by several goroutines at once; it must not block.
	Observer func(Event)
	// Transport replaces the network, in tests.
	Transport http.RoundTripper
}

// Host is the settings of one registry host.
type Host struct {
	Host                      string   // name[:port] or *.suffix
	Mirrors                   []string // host[:port][/prefix], asked in this order
	PlainHTTP                 bool     // plain HTTP
	InsecureTLS               bool     // no certificate check
	CAFile, CertFile, KeyFile string   // CA added to the system's, client certificate
	Concurrency               int
	Referrers                 string   // auto (default), api or tag
	TokenHosts                []string // private hosts that this registry may name as its token server
	RedirectHosts             []string // private hosts that this registry may redirect to
}

// Timeouts bound the steps of a request; 0 means 10s 10s 30s 30s. Bodies have no total timeout: Idle is the
// longest time without one byte.
type Timeouts struct{ Dial, TLS, Header, Idle time.Duration }

// Retry says how often a request is repeated without progress (0 means 5, negative none) and the longest
// Retry-After that is obeyed (0 means 60s).
type Retry struct {
	Attempts int
	MaxWait  time.Duration
}

// Credential is one entry of auth.credentials. Registry may carry a path. Token is the password when there
// is a Username, else an identity token.
type Credential struct{ Registry, Username, Password, Token string }

// Proxy are the proxies to use, by the rules of golang.org/x/net/http/httpproxy.
type Proxy struct{ HTTP, HTTPS, No string }

// Refs remembers what a tag pointed to; names are "host/repository:tag". It is the tag memory of the cache.
type Refs interface {
	SetRef(ctx context.Context, name string, d hostabi.Descriptor) error
	Ref(ctx context.Context, name string) (hostabi.Descriptor, time.Time, error)
}

const defaultConcurrency = 6

// CopyOptions narrow a Copy.
type CopyOptions struct {
	Platforms []hostabi.Platform // none = everything that is there
	Referrers bool               // the graph of referrers too, three deep
	Progress  func(hostabi.Progress)
}

// Referrer is what Attach adds to a subject: one blob under one manifest.
type Referrer struct {
	ArtifactType string
	MediaType    string // of the blob
	Blob         []byte
	Annotations  map[string]string
}

// New makes a Client. It reads no file, opens no connection and fails only on options that contradict
// themselves, with reason CONFIG_VALUE.
func New(o Options) (*Client, error) {
	if o.DefaultRegistry != "" && !strings.HasPrefix(o.DefaultRegistry, layoutScheme) {
		if _, err := ParseReference(strings.TrimSuffix(o.DefaultRegistry, "/") + "/x"); err != nil {
			e := hostabi.Errorf(hostabi.ReasonConfigValue, "is neither HOST/PATH nor oci-layout:DIR: %w", err)
			e.Op = "registry.default"
			return nil, e
		}
	}
	if err := checkMirrors(o); err != nil {
		return nil, err
	}
	if o.Secrets == nil {
		o.Secrets = new(scrub.Scrubber)
	}
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	setDefault(&o.Concurrency, defaultConcurrency)
	setDefault(&o.Timeouts.Dial, 10*time.Second)
	setDefault(&o.Timeouts.TLS, 10*time.Second)
	setDefault(&o.Timeouts.Header, 30*time.Second)
	setDefault(&o.Timeouts.Idle, 30*time.Second)
	setDefault(&o.Retry.Attempts, 5)
	setDefault(&o.Retry.MaxWait, 60*time.Second)
	return &Client{
		o: o, creds: &credentialSources{static: o.Credentials, paths: o.CredentialFiles}, fs: atomicfile.OS(), mounts: mounts{fs: atomicfile.OS(), dir: o.MountDir},
		now: time.Now, sleep: sleepFor, buffers: sync.Pool{New: func() any { b := make([]byte, copyBuffer); return &b }},
		hosts: make(map[string]*host), repos: make(map[string]*remoteRepo), networks: make(map[[4]string]*egress.Transport),
	}, nil
}

func setDefault[T int | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// Close closes idle connections. The Client can still be used.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.networks {
		t.CloseIdleConnections()
	}
	return nil
}

// Parse parses ref; short names are joined to the default registry, ~ is the home directory.
func (c *Client) Parse(ref string) (Reference, error) {
	return parser{def: c.o.DefaultRegistry, home: c.o.Home, dir: c.o.Dir}.parse(ref)
}

// Canonical is Reference.Name of ref: the identity that gate, grants and locks match. It makes no request.
func (c *Client) Canonical(ref string) (repository string, err error) {
	r, err := c.Parse(ref)
	if err != nil {
		return "", err
	}
	return r.Name(), nil
}

// source is where a graph is read from. Errors are raw: the exported methods give them their reason.
type source interface {
	// resolve finds the digest, else the tag.
	resolve(ctx context.Context, tag string, d hostabi.Digest) (hostabi.Descriptor, error)
	// manifest is at most 4 MiB and has the digest.
	manifest(ctx context.Context, d hostabi.Descriptor) ([]byte, error)
	// blob opens at the first use. Whoever keeps the bytes checks them.
	blob(ctx context.Context, d hostabi.Descriptor) io.ReadSeekCloser
	tags(ctx context.Context, yield func(string) error) error
	// referrers lists candidates; the caller checks the subject of each.
	referrers(ctx context.Context, subject hostabi.Digest) ([]hostabi.Descriptor, error)
	// source names the credential that was used.
	source() string
}

// target is a source that can be written to.
type target interface {
	source
	has(ctx context.Context, d hostabi.Descriptor) (bool, error)
	put(ctx context.Context, d hostabi.Descriptor, src io.ReadSeeker, count func(int64)) error
	mount(ctx context.Context, d hostabi.Descriptor, from string) bool
	// putManifest stores a manifest by its digest, tag under a name too ("" only makes it findable).
	putManifest(ctx context.Context, d hostabi.Descriptor, body []byte) error
	tag(ctx context.Context, d hostabi.Descriptor, body []byte, tag string) error
}

var (
	_ target = (*remoteRepo)(nil)
	_ target = (*layout)(nil)
)

// at opens the place that ref names.
func (c *Client) at(ref Reference) (target, error) {
	if ref.IsLayout() {
		l, err := c.layout(ref.Path)
		if err != nil {
			return nil, failure("open", ref, "", err)
		}
		return l, nil
	}
	r, err := c.remote(ref)
	if err != nil {
		return nil, failure("open", ref, "", err)
	}
	return r, nil
}

// open parses ref and opens its place.
func (c *Client) open(ref string) (Reference, target, error) {
	r, err := c.Parse(ref)
	if err != nil {
		return Reference{}, nil, err
	}
	t, err := c.at(r)
	return r, t, err
}

// tagAge is how long Resolve believes its memory of a tag. Only Resolve does: whatever fetches, installs or
// changes something asks the registry.
const tagAge = 5 * time.Minute

// Resolve finds what ref points to: one HEAD, or none for a tag that was seen in the last five minutes.
// Offline, tags of any age are answered from Options.Refs.
func (c *Client) Resolve(ctx context.Context, ref string) (hostabi.Descriptor, error) {
	r, t, err := c.open(ref)
	if err != nil {
		return hostabi.Descriptor{}, err
	}
	if r.Digest == "" && !r.IsLayout() {
		if d, seen, ok := c.remembered(ctx, r); ok && !seen.After(c.now()) && c.now().Sub(seen) <= tagAge {
			return d, nil
		}
	}
	return c.resolve(ctx, r, t)
}

// ResolveFresh is Resolve without the memory of tags, unless offline.
func (c *Client) ResolveFresh(ctx context.Context, ref string) (hostabi.Descriptor, error) {
	r, t, err := c.open(ref)
	if err != nil {
		return hostabi.Descriptor{}, err
	}
	return c.resolve(ctx, r, t)
}

func (c *Client) resolve(ctx context.Context, r Reference, t source) (hostabi.Descriptor, error) {
	r = r.orLatest()
	byTag := r.Digest == "" && !r.IsLayout()
	if byTag && c.o.Offline {
		if d, _, ok := c.remembered(ctx, r); ok {
			return d, nil
		}
	}
	c.observe(Event{Op: "resolve", Phase: PhaseStart, Ref: r.String()})
	d, err := t.resolve(ctx, r.Tag, r.Digest)
	if err != nil {
		err = fail(ctx, "resolve", r, t, err)
		c.observe(Event{Op: "resolve", Phase: PhaseFailed, Ref: r.String(), Err: err})
		return hostabi.Descriptor{}, err
	}
	c.observe(Event{Op: "resolve", Phase: PhaseDone, Ref: r.String(), Digest: d.Digest, MediaType: d.MediaType, Size: d.Size})
	if byTag {
		c.remember(ctx, r, d)
	}
	d.Ref = r.String()
	return d, nil
}

// remembered is what the tag of r was when it was seen last.
func (c *Client) remembered(ctx context.Context, r Reference) (d hostabi.Descriptor, seen time.Time, ok bool) {
	if c.o.Refs == nil {
		return d, seen, false
	}
	name := r.orLatest().String()
	d, seen, err := c.o.Refs.Ref(ctx, name)
	d.Ref = name
	return d, seen, err == nil
}

// remember notes what the tag of r is. A memory that fails costs only itself.
func (c *Client) remember(ctx context.Context, r Reference, d hostabi.Descriptor) {
	if c.o.Refs != nil && r.Tag != "" && !r.IsLayout() {
		_ = c.o.Refs.SetRef(ctx, Reference{Host: r.Host, Repository: r.Repository, Tag: r.Tag}.String(), d)
	}
}

// Tags yields the tags of the repository in no particular order. It asks for further pages only while the
// consumer goes on. An error is the last pair.
func (c *Client) Tags(ctx context.Context, repo string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		r, t, err := c.open(repo)
		if err != nil {
			yield("", err)
			return
		}
		err = t.tags(ctx, func(tag string) error {
			if isReferrersTag(tag) || !ValidTag(tag) {
				return nil
			}
			if !yield(tag, nil) {
				return errStop
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStop) {
			yield("", fail(ctx, "tags", r, t, err))
		}
	}
}

// isReferrersTag reports whether a tag is a fallback index of referrers, which is no version of anything.
func isReferrersTag(tag string) bool {
	return strings.HasPrefix(tag, "sha256-") && hostabi.Digest("sha256:"+strings.TrimPrefix(tag, "sha256-")).Valid()
}
