package registry

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/delivery-station/ds/hostabi"
)

// mirrorChances is how often a mirror may fail before the process stops asking it.
const mirrorChances = 2

// mirrorPatience is how many bytes a body must give for its early end not to count as a failure.
const mirrorPatience = 64 << 10

// mirror is a copy of a repository at another host. It needs no trust: what comes from it is hashed.
type mirror struct {
	repo   *remoteRepo
	failed atomic.Int32
}

func (m *mirror) usable() bool { return m.failed.Load() < mirrorChances }

// failure counts one. That a mirror does not hold something is none.
func (m *mirror) failure(ctx context.Context, err error) {
	if ctx.Err() == nil && !isNotFound(err) && hostabi.ReasonOf(err) == "" {
		m.failed.Add(1)
	}
}

// distrust ends the use of a mirror that gave wrong bytes.
func (m *mirror) distrust() { m.failed.Store(mirrorChances) }

// checkMirrors refuses mirrors that name no place.
func checkMirrors(o Options) error {
	check := func(key string, mirrors []string) error {
		for _, m := range mirrors {
			if _, err := mirrorReference(m, "x"); err != nil {
				e := hostabi.Errorf(hostabi.ReasonConfigValue, "%q is no HOST[:PORT][/PREFIX]", clip(m, 100))
				e.Op = key
				return e
			}
		}
		return nil
	}
	for _, h := range o.Hosts {
		if err := check("registry.hosts[].mirrors", h.Mirrors); err != nil {
			return err
		}
	}
	return check("registry.mirrors", o.Mirrors)
}

// mirrorReference is where a repository is at a mirror.
func mirrorReference(m, repository string) (Reference, error) {
	return ParseReference(strings.TrimSuffix(strings.TrimPrefix(m, remoteScheme), "/") + "/" + repository)
}

// mirrorsOf are the mirrors of a host: its own, else those of the default registry if it is there.
func (c *Client) mirrorsOf(h *host) []string {
	if len(h.opt.Mirrors) > 0 {
		return h.opt.Mirrors
	}
	if len(c.o.Mirrors) == 0 {
		return nil
	}
	if def, err := c.Parse("x"); err != nil || def.Host != h.known {
		return nil
	}
	return c.o.Mirrors
}

// mirrored gives r its mirrors, once.
func (c *Client) mirrored(r *remoteRepo) (*remoteRepo, error) {
	names := c.mirrorsOf(r.h)
	if len(names) == 0 {
		return r, nil
	}
	list := make([]*mirror, 0, len(names))
	for _, name := range names {
		ref, err := mirrorReference(name, r.ref.Repository)
		if err != nil {
			return nil, err
		}
		at, err := c.place(ref)
		if err != nil {
			return nil, err
		}
		list = append(list, &mirror{repo: at})
	}
	// A mirror may be an origin of its own for others, so that r and not the place it is has the mirrors.
	c.mu.Lock()
	defer c.mu.Unlock()
	name := "mirrored " + r.ref.Name()
	if have := c.repos[name]; have != nil {
		return have, nil
	}
	with := *r
	with.mirrors = list
	c.repos[name] = &with
	return &with, nil
}

type onceKey struct{}

// once makes requests under ctx fail at their first failure: there is another place to ask.
func once(ctx context.Context) context.Context { return context.WithValue(ctx, onceKey{}, true) }

func isOnce(ctx context.Context) bool { return ctx.Value(onceKey{}) != nil }

// fromMirrors asks the mirrors in their order. ok is false if none had an answer.
func fromMirrors[T any](ctx context.Context, r *remoteRepo, f func(ctx context.Context, m *remoteRepo) (T, error)) (v T, ok bool) {
	for _, m := range r.mirrors {
		if !m.usable() {
			continue
		}
		v, err := f(once(ctx), m.repo)
		if err == nil {
			return v, true
		}
		m.failure(ctx, err)
	}
	return v, false
}

// unreachable reports whether an origin did not answer at all: an answer of its own, like 404, is the truth.
func (r *remoteRepo) unreachable(ctx context.Context, err error) bool {
	if err == nil || ctx.Err() != nil || len(r.mirrors) == 0 {
		return false
	}
	if s, ok := status(err); ok {
		return s >= http.StatusInternalServerError
	}
	return hostabi.ReasonOf(err) == "" && !isTLS(err) && isNet(err)
}

// tagFromMirror lets a mirror say what a tag is, because the origin cannot.
func (r *remoteRepo) tagFromMirror(ctx context.Context, tag string) (hostabi.Descriptor, bool) {
	for _, m := range r.mirrors {
		if !m.usable() {
			continue
		}
		d, err := m.repo.ask(once(ctx), tag, "")
		if err == nil {
			r.c.o.Warn(r.ref.Name() + ":" + tag + " via " + m.repo.ref.Name() + ": " + r.h.known + " is unreachable")
			return d, true
		}
		m.failure(ctx, err)
	}
	return hostabi.Descriptor{}, false
}
