package main

import (
	"cmp"
	"context"
	"io"
	"math"
	"os"
	"strings"
	"sync"

	"github.com/delivery-station/ds/cache"
	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/registry"
	"github.com/delivery-station/ds/sandbox"
)

// newRemote is the team tier of the configuration. Words that mean nothing are an error; that the registry
// cannot be used is found out at the first request, and never is one.
func (p *parts) newRemote() (r cache.Remote, err error) {
	c := p.a.cfg
	ref, mode := c.String("cache.remote.ref"), c.String("cache.remote.mode")
	share, err := sandbox.Repositories(c.List("cache.remote.share"))
	if err != nil {
		return r, badKey("cache.remote.share", err)
	}
	if ref == "" || mode == "off" || c.Bool("registry.offline") {
		return r, nil
	}
	client, err := p.registry()
	if err != nil {
		return r, err
	}
	at, err := client.Parse(ref)
	if err != nil {
		return r, badKey("cache.remote.ref", err)
	}
	if at.IsLayout() {
		return r, hostabi.Errorf(hostabi.ReasonConfigValue, "cache.remote.ref: %s is a layout, want a repository of a registry", ref)
	}
	r = cache.Remote{
		Upstream: &lazyUpstream{at.Name(), sync.OnceValues(func() (*registry.Upstream, error) { return client.Upstream(at.Name()) })},
		Timeout:  c.Duration("cache.remote.timeout"), MaxBlob: cmp.Or(c.Int("cache.remote.max_blob"), math.MaxInt64),
		NegativeTTL: cmp.Or(c.Duration("cache.remote.negative_ttl"), -1), Hurry: p.a.ending,
	}
	if mode == "readwrite" && len(c.List("cache.remote.share")) > 0 {
		r.Share = share
	}
	return r, nil
}

func badKey(key string, err error) error {
	return hostabi.Errorf(hostabi.ReasonConfigValue, "%s: %w", key, err)
}

// lazyUpstream reads certificates of the tier's host at the first request: a tier that is broken fails nothing.
type lazyUpstream struct {
	name string
	open func() (*registry.Upstream, error)
}

func (l *lazyUpstream) Name() string { return l.name }

func (l *lazyUpstream) Fetch(ctx context.Context, source string, d hostabi.Descriptor, offset int64) (io.ReadCloser, int64, error) {
	u, err := l.open()
	if err != nil {
		return nil, 0, err
	}
	return u.Fetch(ctx, source, d, offset)
}

func (l *lazyUpstream) Push(ctx context.Context, source string, d hostabi.Descriptor, open func() (*os.File, error)) error {
	u, err := l.open()
	if err != nil {
		return err
	}
	return u.Push(ctx, source, d, open)
}

// view is the cache as the sink of what comes from source; local = source is on this machine, whatever it is named.
func (p *parts) view(owner hostabi.PluginName, source string, local bool) (*cache.View, error) {
	c, err := p.cache()
	if err != nil {
		return nil, err
	}
	v := c.View(owner, source)
	if local || strings.HasPrefix(source, "oci-layout:") {
		v.Local()
	}
	return v, nil
}
