package host

import (
	"context"
	"io"
	"iter"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

// One interface per service: what its handler needs, not what the implementer offers.

// Config serves JSON-shaped values with their origin; secret keys have an empty JSON in List. Keys are those
// of the host ABI: settings.NAME.… stands for plugins.settings.NAME.….
type Config interface {
	Get(ctx context.Context, caller hostabi.PluginName, key string) (hostabi.ConfigValue, error)
	List(ctx context.Context, caller hostabi.PluginName, prefix string) ([]hostabi.ConfigValue, error)
}

// Cache is cache.View: one per session and one more per pull; Close ends its leases.
type Cache interface {
	hostabi.Sink
	io.Closer
	// Open returns a read-only file whose path may be handed to an unconfined native plugin.
	Open(ctx context.Context, d hostabi.Digest) (*os.File, error)
	// List yields the blobs that owner committed; "" = all.
	List(ctx context.Context, owner hostabi.PluginName) iter.Seq2[hostabi.BlobInfo, error]
	// Pin keeps d until then; zero unpins.
	Pin(ctx context.Context, d hostabi.Digest, owner hostabi.PluginName, until time.Time) error
}

// CacheAdmin is found by type assertion on a Cache.
type CacheAdmin interface {
	Usage(ctx context.Context) (hostabi.CacheUsage, error)
	Remove(ctx context.Context, owner hostabi.PluginName, d hostabi.Digest) error
	Evict(ctx context.Context, o hostabi.EvictOptions) iter.Seq2[hostabi.BlobInfo, error]
	Verify(ctx context.Context, ds []hostabi.Digest, repair bool) iter.Seq2[hostabi.Verdict, error]
}

// Expecter is found by type assertion on a BlobWriter: what is known only at Commit.
type Expecter interface {
	Expect(want hostabi.Descriptor, ttl time.Duration)
}

// Owner tells whether a plugin committed a blob; found by type assertion on a Cache.
type Owner interface {
	Owned(ctx context.Context, owner hostabi.PluginName, d hostabi.Digest, size int64) bool
}

// Bringer gets a blob from a tier that is nearer than its source; found by type assertion on a Cache. NOT_CACHED =
// it could not.
type Bringer interface {
	Bring(ctx context.Context, d hostabi.Descriptor) error
}

// Puller is registry.Client. References are canonical once: what the gate matches is what Pull uses.
type Puller interface {
	Canonical(ref string) (repository string, err error)
	Resolve(ctx context.Context, ref string) (hostabi.Descriptor, error)
	Pull(ctx context.Context, ref string, o hostabi.PullOptions, into hostabi.Sink, p func(hostabi.Progress)) (hostabi.Descriptor, error)
	Tags(ctx context.Context, repo string) iter.Seq2[string, error]
	Referrers(ctx context.Context, repo string, subject hostabi.Digest, artifactType string) iter.Seq2[hostabi.Descriptor, error]
}

// Pusher is registry.Client.
type Pusher interface {
	Push(ctx context.Context, ref string, root hostabi.Descriptor, from hostabi.OpenFunc, p func(hostabi.Progress)) error
	Tag(ctx context.Context, ref, tag string) error
}

// Events is internal/events or internal/natsbus. Who publishes or subscribes is the hostabi.Publisher of ctx.
type Events interface {
	Publish(ctx context.Context, e hostabi.Event) (subscribers, dropped int, err error)
	Subscribe(ctx context.Context, topics []string) (hostabi.Subscription, error)
	Wanted(topic string) bool
}

// State is internal/state or internal/natsbus; ifRev nil = unconditional, 0 = must not exist; quota 0 = the default.
type State interface {
	Get(ctx context.Context, owner hostabi.PluginName, key string) (hostabi.StateEntry, error)
	Put(ctx context.Context, owner hostabi.PluginName, e hostabi.StateEntry, ifRev *uint64, quota int64) (hostabi.StateEntry, error)
	Delete(ctx context.Context, owner hostabi.PluginName, key string, ifRev *uint64) (deleted bool, err error)
	List(ctx context.Context, owner hostabi.PluginName, prefix string) iter.Seq2[hostabi.StateEntry, error]
}

// Plugins is plugin/manager.
type Plugins interface {
	Run(ctx context.Context, name plugin.Name, inv *plugin.Invocation) error
	All(ctx context.Context) iter.Seq2[*plugin.Installed, error]
}

// Terminal is internal/term. Rows renders nothing before End.
type Terminal interface {
	Report(p hostabi.Progress)
	Prompt(ctx context.Context, p hostabi.Prompt) (answer string, defaulted bool, err error)
	Rows(w io.Writer, format string, r hostabi.Rows) error
}

// FreshResolver is found by type assertion on a Puller: Resolve without the memory of tags.
type FreshResolver interface {
	ResolveFresh(ctx context.Context, ref string) (hostabi.Descriptor, error)
}

// Limiter is found by type assertion on a Cache: it bounds what owner may have in the cache together, the
// quota of cache.write. 0 = none.
type Limiter interface {
	Limit(bytes int64)
}

// HTTP is internal/egress. Every request that the client makes for r, redirects included, is decided by
// allow before it connects; private says that the address may be a private one. The body of the answer is
// the caller's to close.
type HTTP interface {
	Do(r *http.Request, maxRedirects int, allow func(target *url.URL) (private bool, err error)) (*http.Response, error)
}
