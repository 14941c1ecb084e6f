// Package host serves the host ABI ds.host.v1: the services' handlers behind small interfaces of their
// owners, the gate in front of them, and the Session that every carrier dispatches to. Nothing here knows
// a carrier, a backend or an implementation of a service. Start with New, Registrar.Open and gate.go.
package host

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/sandbox"
)

// Options are what sessions share over all services. Functions are called at first use, so that a plugin
// that never touches a part does not build it; nil means that this host lacks the part and its methods
// answer UNIMPLEMENTED.
type Options struct {
	Version string // of ds, for Meta.Describe

	// Cache opens a view of the cache. Each session has one with an empty source, and one more for each
	// pull whose source is the repository.
	Cache func(owner hostabi.PluginName, source string) (Cache, error)
	// Puller is the registry client; the gate also asks it for the canonical form of references.
	Puller func() (Puller, error)
	// Events receives what plugins publish and, if somebody listens, the host events of sessions.
	Events Events

	// Notice prints one line of a plugin for the user, above the progress display; nil logs it.
	Notice func(text string)
	// Observe is told about every call when it ended: the span and metric hook. It must not block.
	Observe func(ctx context.Context, o Observation)
	Log     *slog.Logger     // default: discarded
	Clock   func() time.Time // default time.Now
}

// Observation is one host call that ended.
type Observation struct {
	Plugin     hostabi.PluginName
	Invocation string
	Method     string // "/ds.host.v1.Config/Get"
	Code       hostabi.Code
	Took       time.Duration
}

// Registrar collects the services of the host ABI and opens sessions on them. It is a
// grpc.ServiceRegistrar: generated Register functions fill it. After the first Open it is immutable and
// safe for concurrent use.
type Registrar struct {
	o       Options
	methods map[string]*method
	names   []string // sorted, without the leading slash
	descs   []service
	sealed  atomic.Bool

	decoders sync.Pool
	unary    grpc.UnaryServerInterceptor // intercept, bound once
}

type service struct {
	desc *grpc.ServiceDesc
	impl any
}

// method is one entry of the dispatch table; exactly one of unary and stream is set.
type method struct {
	name   string
	impl   any
	unary  *grpc.MethodDesc
	stream *grpc.StreamDesc
	rule   rule
}

// New makes an empty registrar. Services are added with the generated Register functions:
//
//	reg := host.New(o)
//	hostv1.RegisterConfigServer(reg, host.NewConfig(cfg))
func New(o Options) *Registrar {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	r := &Registrar{o: o, methods: make(map[string]*method), decoders: sync.Pool{New: newDecoder}}
	r.unary = r.intercept
	return r
}

// RegisterService implements grpc.ServiceRegistrar. It panics for a service registered twice or after the
// first Open: both are wiring errors.
func (r *Registrar) RegisterService(d *grpc.ServiceDesc, impl any) {
	if r.sealed.Load() {
		panic("host: service " + d.ServiceName + " registered after the first session")
	}
	r.descs = append(r.descs, service{d, impl})
	for i := range d.Methods {
		r.add(d.ServiceName, d.Methods[i].MethodName, &method{impl: impl, unary: &d.Methods[i]})
	}
	for i := range d.Streams {
		r.add(d.ServiceName, d.Streams[i].StreamName, &method{impl: impl, stream: &d.Streams[i]})
	}
	slices.Sort(r.names)
}

func (r *Registrar) add(service, name string, m *method) {
	short := service + "/" + name
	m.name = "/" + short
	if _, ok := r.methods[m.name]; ok {
		panic("host: method " + m.name + " registered twice")
	}
	m.rule = rules[m.name]
	r.methods[m.name] = m
	r.names = append(r.names, short)
}

// Methods lists what is served, sorted, in the form of plugin manifests: "ds.host.v1.Config/Get".
func (r *Registrar) Methods() []string { return slices.Clone(r.names) }

// Open binds a session to one run. p.Program says which kind runs; box and inv are not changed.
func (r *Registrar) Open(p *plugin.Installed, box *sandbox.Box, inv *plugin.Invocation) (hostabi.Session, error) {
	if p == nil || box == nil || inv == nil {
		return nil, hostabi.Errorf(hostabi.ReasonInternal, "session without plugin, box or invocation")
	}
	r.sealed.Store(true)
	return newSession(r, p, box, inv), nil
}

// lookup finds a method by its full name.
func (r *Registrar) lookup(name string) (*method, error) {
	if m, ok := r.methods[name]; ok {
		return m, nil
	}
	if len(name) > hostabi.MaxMethod {
		return nil, hostabi.Errorf(hostabi.ReasonTooLarge, "method name has %d bytes, at most %d", len(name), hostabi.MaxMethod)
	}
	return nil, unknownMethod(name)
}

func unknownMethod(name string) *hostabi.Error {
	return hostabi.Errorf(hostabi.ReasonUnknownMethod, "method %s: unknown to this host", clean(strings.TrimPrefix(name, "/"), hostabi.MaxMethod))
}

// missing is the answer of a service whose owner this host lacks.
func missing(what string) error {
	return hostabi.Errorf(hostabi.ReasonUnknownMethod, "this host has no %s", what)
}

// traced is the error of something that went wrong in the host: the guest gets the trace id, the log the
// cause.
func (s *Session) traced(method string, cause any) *hostabi.Error {
	s.r.o.Log.Error("host call failed", "method", method, "plugin", s.p.Name, "trace_id", s.inv.TraceID, "cause", fmt.Sprint(cause))
	return hostabi.Errorf(hostabi.ReasonInternal, "internal error, trace %s", s.inv.TraceID)
}
