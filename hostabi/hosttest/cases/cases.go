// Package cases holds the cases of the conformance kit, each written once against hostabi.Session. A guest
// of any kind links it, so it imports the words and the guest messages only. A case returns text that is
// the same on every carrier; package hosttest knows what it must be. Start with Run.
package cases

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1lite"
)

// Run runs one case over s and returns its result: lines of text without a final newline. What goes wrong is
// part of the text. s stays open.
func Run(ctx context.Context, s hostabi.Session, name string) string {
	f, ok := all[name]
	if !ok {
		return "no such case: " + name
	}
	g := &guest{ctx: ctx, s: s}
	f(g)
	return strings.Join(g.lines, "\n")
}

// Names lists the cases, sorted: "group/case".
func Names() []string { return slices.Sorted(maps.Keys(all)) }

var all = map[string]func(*guest){
	"meta/describe":              metaDescribe,
	"meta/lists-all-methods":     metaMethods,
	"meta/unknown-method":        metaUnknownMethod,
	"meta/unknown-service":       metaUnknownService,
	"meta/unknown-stream":        metaUnknownStream,
	"meta/garbage-request":       metaGarbage,
	"meta/invalid-utf8":          metaInvalidUTF8,
	"meta/unknown-field-ignored": metaUnknownField,
	"meta/empty-request":         metaEmpty,

	"config/get-own":             configGet("settings.kit.greeting"),
	"config/get-missing":         configGet("settings.kit.nothing"),
	"config/bad-key":             configGet("settings..kit"),
	"config/foreign-denied":      configGet("settings.other.greeting"),
	"config/secret-denied":       configGet("settings.kit.locked.password"),
	"config/secret-granted":      configGet("settings.kit.open.token"),
	"config/list-prefix":         configList("settings.kit.list."),
	"config/list-redacts-secret": configList("settings.kit.open."),

	"cache/stat-miss":                cacheStatMiss,
	"cache/bad-digest":               cacheBadDigest,
	"cache/create-write-commit-open": cacheRoundTrip,
	"cache/wrong-digest":             cacheWrongDigest,
	"cache/wrong-size":               cacheWrongSize,
	"cache/abort":                    cacheAbort,
	"cache/exit-discards-sink":       cacheLeaveSink,
	"cache/foreign-denied":           cacheForeign,
	"cache/list-own":                 cacheList,
	"cache/pin":                      cachePin,
	"cache/pinned-kept":              cachePinned,
	"cache/over-quota":               cacheOverQuota,
	"cache/open-256MiB":              cacheOpenBig,
	"cache/usage-denied":             cacheUsage,
	"cache/housekeeping":             cacheHousekeeping,
	"cache/housekeeping-denied":      cacheHousekeepingDenied,
	"cache/verify-damaged":           cacheVerifyDamaged,
	"cache/create-from":              cacheCreateFrom,
	"cache/create-from-denied":       cacheCreateFrom,

	"registry/resolve":            registryResolve,
	"registry/missing":            registryMissing,
	"registry/bad-reference":      registryBadRef,
	"registry/pull-then-root":     registryPull,
	"registry/cached-no-network":  registryPullTwice,
	"registry/read-after-pull":    registryReadPulled,
	"registry/repo-denied":        registryDenied,
	"registry/push-pull":          registryPushPull,
	"registry/push-missing":       registryPushMissing,
	"registry/push-foreign":       registryPushForeign,
	"registry/push-denied":        registryPushDenied,
	"registry/tag":                registryTag,
	"registry/list-tags":          registryTags,
	"registry/tags-1000":          registryManyTags,
	"registry/referrers":          registryReferrers,
	"registry/referrers-fallback": registryReferrers,
	"registry/referrers-none":     registryNoReferrers,
	"registry/offline":            registryResolve,

	"events/publish-subscribe": eventsSubscribe,
	"events/poll":              eventsPoll,
	"events/ring-101":          eventsRing,
	"events/own-do-not-return": eventsOwn,
	"events/hops-8":            eventsHops,
	"events/topic-denied":      eventsPublish("other.thing", 0),
	"events/reserved-topic":    eventsPublish("artifact.pulled", 0),
	"events/bad-topic":         eventsPublish("Kit..x", 0),
	"events/data-too-large":    eventsPublish("kit.big", hostabi.MaxEventData+1),
	"events/unknown-poll":      eventsUnknownPoll,

	"state/put-get":        statePutGet,
	"state/bad-key":        stateBadKey,
	"state/ttl-expired":    stateTTL,
	"state/create-only":    stateCreateOnly,
	"state/stale-revision": stateStale,
	"state/add":            stateAdd,
	"state/delete":         stateDelete,
	"state/list-prefix":    stateList,
	"state/two-writers":    stateTwoWriters,
	"state/foreign-denied": stateForeign,
	"state/over-quota":     stateOverQuota,
	"state/value-too-big":  stateTooBig,

	"plugins/list":               pluginsList,
	"plugins/exit-3":             pluginsExit,
	"plugins/stdin-1MiB":         pluginsStdin(1 << 20),
	"plugins/stdin-8MiB":         pluginsStdin(8 << 20),
	"plugins/output-order":       pluginsOrder,
	"plugins/deadline-inherited": pluginsDeadline,
	"plugins/depth-8":            pluginsDepth,
	"plugins/cycle":              pluginsCycle,
	"plugins/not-found":          pluginsCall("absent", "run"),
	"plugins/call-denied":        pluginsCall("exit", "forbidden"),
	"plugins/timeout":            pluginsTimeout,
	"plugins/blob-delegated":     pluginsBlob,
	"plugins/blob-foreign":       pluginsBlobForeign,
	"plugins/own-grants":         pluginsOwnGrants,
	"plugins/cancel-kills":       pluginsCancel,
	"plugins/args-not-widened":   pluginsArgs,
	"plugins/no-start":           pluginsNoStart,

	"http/get":              httpGet,
	"http/post":             httpPost,
	"http/body-blob":        httpBodyBlob,
	"http/sink-digest":      httpSink,
	"http/body-1MiB":        httpBig("/big"),
	"http/body-10MiB":       httpBig("/large"),
	"http/redirect-allowed": httpPath("/here"),
	"http/redirect-denied":  httpPath("/away"),
	"http/no-redirects":     httpNoRedirects,
	"http/private-address":  httpPrivate,
	"http/url-denied":       httpURL("https://denied.example/"),
	"http/bad-url":          httpBadURL,
	"http/timeout":          httpTimeout,

	"log/batch":         logBatch,
	"log/control-chars": logControl,
	"log/too-large":     logTooLarge,

	"term/prompt-answer": termPrompt("confirm", "yes or no"),
	"term/prompt-no-tty": termPrompt("line", "nobody"),
	"term/prompt-kind":   termPrompt("shout", "x"),
	"term/prompt-denied": termPrompt("secret", "x"),
	"term/rows-json":     termRows,
	"term/rows-at-exit":  termRowsAtExit,
	"term/bad-row":       termBadRow,
	"term/progress":      termProgress,

	"carrier/4MiB":                 carrierSize(hostabi.MaxMessage),
	"carrier/4MiB+1":               carrierSize(hostabi.MaxMessage + 1),
	"carrier/reply-too-large":      carrierReply,
	"carrier/65th-stream":          carrierStreams,
	"carrier/bad-handle":           carrierBadHandle,
	"carrier/65th-handle":          carrierHandles,
	"carrier/half-close":           carrierHalfClose,
	"carrier/cancel-midstream":     carrierCancel,
	"carrier/slow-reader-isolated": carrierSlowReader,
	"carrier/parallel-32":          carrierParallel,
	"carrier/panic-is-internal":    carrierPanic,
	"carrier/deadline-midcall":     carrierDeadline,
}

// guest is one running case.
type guest struct {
	ctx   context.Context
	s     hostabi.Session
	lines []string
}

// print adds one line.
func (g *guest) print(format string, a ...any) { g.lines = append(g.lines, fmt.Sprintf(format, a...)) }

// outcome adds one line: what, and ok or the code and reason of err.
func (g *guest) outcome(what string, err error) { g.print("%s: %s", what, word(err)) }

// word is err as cases print it; messages are for people and are not compared.
func word(err error) string {
	if err == nil {
		return "ok"
	}
	if errors.Is(err, io.EOF) {
		return "end"
	}
	e, ok := errors.AsType[*hostabi.Error](err)
	if !ok {
		return "not a host error: " + err.Error()
	}
	return e.Code.String() + " " + string(e.Reason)
}

// call runs a unary method.
func (g *guest) call(method string, req, reply hostv1lite.Message) error {
	out, err := g.s.Invoke(g.ctx, hostabi.Call{Method: method, Req: req.AppendProto(nil)})
	if err != nil {
		return err
	}
	return reply.ParseProto(out)
}

// raw runs a unary method with bytes as they are.
func (g *guest) raw(method string, req []byte) error {
	_, err := g.s.Invoke(g.ctx, hostabi.Call{Method: method, Req: req})
	return err
}

// stream is an open streaming call.
type stream struct{ hostabi.Stream }

// open starts a method that streams both ways with its first message.
func (g *guest) open(method string, first hostv1lite.Message) (stream, error) {
	st, err := g.s.Stream(g.ctx, method, hostabi.EncProto)
	if err != nil {
		return stream{}, err
	}
	out := stream{st}
	return out, out.send(first)
}

// list starts a method that streams answers to one request.
func (g *guest) list(method string, req hostv1lite.Message) (stream, error) {
	st, err := g.open(method, req)
	if err == nil {
		err = st.CloseSend()
	}
	return st, err
}

// send hides io.EOF: the result of a stream that the host has ended comes from recv.
func (st stream) send(m hostv1lite.Message) error {
	if err := st.Send(m.AppendProto(nil)); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

func (st stream) recv(m hostv1lite.Message) error {
	b, err := st.Recv()
	if err != nil {
		return err
	}
	return m.ParseProto(b)
}

// each runs a server-streaming method to its end. next decodes and handles one message; the result is nil
// after a clean end.
func (g *guest) each(method string, req hostv1lite.Message, next func(st stream) error) error {
	st, err := g.list(method, req)
	if err != nil {
		return err
	}
	defer st.Close() //nolint:errcheck // ended
	for {
		if err := next(st); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// setting is the text of a configuration value.
func (g *guest) setting(key string) string {
	var v hostv1lite.ConfigValue
	if err := g.call(hostv1lite.ConfigGet, &hostv1lite.GetConfigRequest{Key: key}, &v); err != nil {
		g.outcome(key, err)
	}
	return strings.Trim(v.Json, `"`)
}

// write writes all of b to a sink: through its handle if the carrier has one, else to its path.
func (g *guest) write(o *hostv1lite.OpenedBlob, b []byte) error {
	h, err := g.s.Handle(o.Handle)
	if err == nil {
		_, err = h.Write(b)
	}
	if err == nil || o.Path == "" || hostabi.ReasonOf(err) != hostabi.ReasonBadHandle {
		return err
	}
	f, err := os.OpenFile(o.Path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// reader reads an open blob: by its handle if the carrier has one, else by its path. done ends it.
func (g *guest) reader(o *hostv1lite.OpenedBlob) (r io.Reader, done func(), err error) {
	if h, err := g.s.Handle(o.Handle); err == nil {
		return h, func() {}, nil
	}
	f, err := os.Open(o.Path)
	if err != nil {
		return nil, nil, err
	}
	return f, func() { _ = f.Close() }, nil // only read
}

// readAll reads an open blob.
func (g *guest) readAll(o *hostv1lite.OpenedBlob) ([]byte, error) {
	r, done, err := g.reader(o)
	if err != nil {
		return nil, err
	}
	defer done()
	return io.ReadAll(r)
}

// put commits b as a blob.
func (g *guest) put(b []byte, mediaType string) (hostv1lite.BlobInfo, error) {
	var o hostv1lite.OpenedBlob
	var info hostv1lite.BlobInfo
	err := g.call(hostv1lite.CacheCreate, &hostv1lite.CreateBlobRequest{MediaType: mediaType}, &o)
	if err == nil {
		err = g.write(&o, b)
	}
	if err == nil {
		err = g.call(hostv1lite.CacheCommit, &hostv1lite.CommitRequest{Handle: o.Handle}, &info)
	}
	return info, err
}

// read opens and reads a blob.
func (g *guest) read(digest string) ([]byte, error) {
	var o hostv1lite.OpenedBlob
	if err := g.call(hostv1lite.CacheOpen, &hostv1lite.OpenBlobRequest{Digest: digest, WantFd: true}, &o); err != nil {
		return nil, err
	}
	b, err := g.readAll(&o)
	if cerr := g.call(hostv1lite.CacheClose, &hostv1lite.HandleRef{Handle: o.Handle}, &hostv1lite.Empty{}); err == nil {
		err = cerr
	}
	return b, err
}

// run calls a plugin to its end and returns its output and exit. Either side may wait for the other, so input is sent
// beside the receiving: when the stream says that there is room, or in a goroutine. A module that has neither sends
// it first.
func (g *guest) run(start *hostv1lite.CallStart, stdin []byte) (stdout, stderr []byte, exit string, err error) {
	st, err := g.open(hostv1lite.PluginsCall, &hostv1lite.CallRequest{Start: start})
	if err != nil {
		return nil, nil, "", err
	}
	defer st.Close() //nolint:errcheck // ended
	sent := make(chan error, 2)
	next := func() (more bool) {
		if len(stdin) == 0 {
			sent <- st.CloseSend()
			return false
		}
		piece := stdin[:min(len(stdin), 64<<10)]
		stdin = stdin[len(piece):]
		if err := st.send(&hostv1lite.CallRequest{Stdin: piece}); err != nil {
			sent <- err
			return false
		}
		return true
	}
	all := func() {
		for next() {
		}
	}
	p, polls := st.Stream.(hostabi.Poller)
	switch {
	case polls:
	case runtime.GOOS == "wasip1":
		all()
	default:
		go all()
	}
	if polls {
		sent <- nil // what fails is the result of the stream, and a callee may end before it has its input
	}
	for more := polls; ; {
		for recv, room := !more, false; !recv; {
			if recv, room = p.Poll(); room {
				more = next()
				recv = recv || !more
			}
		}
		var e hostv1lite.CallEvent
		if err := st.recv(&e); errors.Is(err, io.EOF) {
			return stdout, stderr, exit, <-sent
		} else if err != nil {
			return stdout, stderr, exit, err
		}
		stdout, stderr = append(stdout, e.Stdout...), append(stderr, e.Stderr...)
		if e.Exit != nil {
			exit = fmt.Sprintf("exit %d signal %d", e.Exit.Code, e.Exit.Signal)
		}
	}
}

// do calls a plugin that only matters for its effect.
func (g *guest) do(name string, words ...string) {
	_, _, _, err := g.run(&hostv1lite.CallStart{Plugin: name, Command: words[0], Args: words[1:]}, nil)
	if err != nil {
		g.outcome(name+" "+strings.Join(words, " "), err)
	}
}
