package hosttest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/sandbox"
)

// expected is what each case gives, on every carrier.
var expected = map[string]result{
	"meta/describe": {text: `
abi ds.host/v1 ds 0.0.0-kit
plugin kit 1.2.3 kind run command "" depth 0
limits 4194304 64 64 calls left 7
trace true id true backend true
grant state.write own`},
	"meta/lists-all-methods":     {from: func(w *World) string { return "describe: ok\n" + strings.Join(w.Registrar.Methods(), "\n") }},
	"meta/unknown-method":        {text: `call: UNIMPLEMENTED UNKNOWN_METHOD`},
	"meta/unknown-service":       {text: `call: UNIMPLEMENTED UNKNOWN_METHOD`},
	"meta/unknown-stream":        {text: `stream: UNIMPLEMENTED UNKNOWN_METHOD`},
	"meta/unknown-field-ignored": {text: "call: ok\n\"hello\""},
	"meta/empty-request":         {text: "call: ok\nkept"},
	"meta/invalid-utf8":          {text: `call: INVALID_ARGUMENT BAD_MESSAGE`},
	"meta/garbage-request": {text: `
wire: INVALID_ARGUMENT BAD_MESSAGE
length: INVALID_ARGUMENT BAD_MESSAGE
stream: INVALID_ARGUMENT BAD_MESSAGE`},

	"config/get-own":        {text: `settings.kit.greeting = "hello" secret false`},
	"config/get-missing":    {text: `get: NOT_FOUND KEY_NOT_FOUND`},
	"config/bad-key":        {text: `get: INVALID_ARGUMENT CONFIG_KEY`},
	"config/secret-granted": {text: `settings.kit.open.token = "s3cret" secret true`},
	"config/foreign-denied": {text: `
get: PERMISSION_DENIED CAPABILITY_DENIED
config.read settings.other.greeting by kit`},
	"config/secret-denied": {text: `
get: PERMISSION_DENIED CAPABILITY_DENIED
secret.read settings.kit.locked.password by kit`},
	"config/list-prefix": {text: `
list: ok
settings.kit.list.a = 1 secret false
settings.kit.list.b = [2] secret false`},
	"config/list-redacts-secret": {text: `
list: ok
settings.kit.open.name = "n" secret false
settings.kit.open.token =  secret true`},

	"cache/stat-miss":  {text: `stat: NOT_FOUND NOT_CACHED`},
	"cache/bad-digest": {text: "stat: INVALID_ARGUMENT BAD_DIGEST\ncreate: INVALID_ARGUMENT BAD_DIGEST"},
	"cache/create-write-commit-open": {text: `
create: ok
write: ok
write: ok
commit: ok
size 80000 type text/plain digest true
read: ok
same true
commit again: INVALID_ARGUMENT BAD_HANDLE`},
	"cache/wrong-digest": {after: nothingOwned, text: `
create: ok
write: ok
commit: DATA_LOSS DIGEST_MISMATCH
stat wanted: NOT_FOUND NOT_CACHED
stat written: NOT_FOUND NOT_CACHED`},
	"cache/wrong-size": {after: nothingOwned, text: "create: ok\nwrite: ok\ncommit: DATA_LOSS DIGEST_MISMATCH"},
	"cache/abort": {after: nothingOwned, text: `
create: ok
write: ok
close: ok
commit: INVALID_ARGUMENT BAD_HANDLE
stat: NOT_FOUND NOT_CACHED`},
	"cache/exit-discards-sink": {text: "create: ok\nwrite: ok", after: nothingOwned},
	"cache/foreign-denied": {text: `
stat: NOT_FOUND NOT_CACHED
open: NOT_FOUND NOT_CACHED
remove: NOT_FOUND NOT_CACHED`},
	"cache/list-own":     {text: "put: ok\nput: ok\nlist: ok\n2 blobs\ntext/two 3\nlist: ok"},
	"cache/pin":          {text: "put: ok\npin: ok\nunpin: ok\ntoo long: INVALID_ARGUMENT BAD_MESSAGE"},
	"cache/pinned-kept":  {before: leftBehind("pinned", "loose"), text: "pin: ok\npinned: ok\nloose: NOT_FOUND NOT_CACHED"},
	"cache/over-quota":   {text: "create: ok\ncommit: RESOURCE_EXHAUSTED QUOTA", after: nothingOwned},
	"cache/open-256MiB":  {before: bigBlob, text: "open: ok\nread: ok\n268435456 bytes, zero true"},
	"cache/usage-denied": {text: `usage: PERMISSION_DENIED CAPABILITY_DENIED`},
	"cache/housekeeping": {granted: wholeCache, text: `
put: ok
pin: ok
stat: ok
pinned true
stat foreign: ok
pinned false
usage: ok
2 blobs, 33 bytes, 4 pinned, on disk true
verify: ok
2 right, 0 wrong
would evict: ok
1 blobs, 29 bytes
evict expired: ok
0 blobs, 0 bytes
evict by policy: ok
0 blobs, 0 bytes
evict: ok
1 blobs, 29 bytes
stat foreign: NOT_FOUND NOT_CACHED
stat: ok`},
	"cache/housekeeping-denied": {text: `
put: ok
evict: PERMISSION_DENIED CAPABILITY_DENIED
0 blobs, 0 bytes
verify own: ok
1 right, 0 wrong
verify foreign: NOT_FOUND NOT_CACHED
0 right, 0 wrong
repair: PERMISSION_DENIED CAPABILITY_DENIED
0 right, 0 wrong
bad digest: INVALID_ARGUMENT BAD_DIGEST
0 right, 0 wrong`},
	"cache/create-from": {granted: wholeCache, text: `
create: ok
write: ok
commit: ok
1 sources, it is one: true
create: ok
write: ok
commit: ok
1 sources, it is one: true
create: ok
write: ok
commit: ok
2 sources, it is one: true
create: INVALID_ARGUMENT REF`},
	"cache/create-from-denied": {after: nothingOwned, text: strings.Repeat("create: PERMISSION_DENIED CAPABILITY_DENIED\n", 4)},
	"cache/verify-damaged": {granted: wholeCache, before: damaged, text: `
verify: ok
0 right, 2 wrong
verify all: ok
0 right, 1 wrong
repair: ok
0 right, 1 wrong
verify all: ok
0 right, 0 wrong
stat: NOT_FOUND NOT_CACHED`},

	"registry/resolve":           {text: "resolve: ok\napplication/vnd.oci.image.manifest.v1+json true true"},
	"registry/missing":           {text: `resolve: NOT_FOUND REF_NOT_FOUND`},
	"registry/bad-reference":     {text: `resolve: INVALID_ARGUMENT REF`},
	"registry/pull-then-root":    {text: "pull: ok\nroot true network 3 cache 0"},
	"registry/cached-no-network": {text: "pull: ok\nroot true network true\npull: ok\nroot true network false"},
	"registry/read-after-pull":   {text: "stat before: NOT_FOUND NOT_CACHED\npull: ok\nread: ok\nlayer one"},
	"registry/repo-denied":       {text: "pull: PERMISSION_DENIED CAPABILITY_DENIED\nresolve: PERMISSION_DENIED CAPABILITY_DENIED"},
	"registry/push-pull": {text: `
layer: ok
config: ok
manifest: ok
push: ok
application/vnd.oci.image.manifest.v1+json true text/kit
pull: ok
same true
pull: ok
same true`},
	"registry/push-missing":       {text: "config: ok\nmanifest: ok\npush: FAILED_PRECONDITION GRAPH_INCOMPLETE"},
	"registry/push-foreign":       {text: "config: ok\nmanifest: ok\npush: FAILED_PRECONDITION GRAPH_INCOMPLETE"},
	"registry/push-denied":        {text: "manifest: ok\npush: PERMISSION_DENIED CAPABILITY_DENIED\ntag: PERMISSION_DENIED CAPABILITY_DENIED"},
	"registry/tag":                {text: "tag: ok\nresolve: ok\nsame true\nbad tag: INVALID_ARGUMENT REF"},
	"registry/list-tags":          {text: "v1\ntags: ok"},
	"registry/tags-1000":          {before: manyTags, text: "tags: ok\n1001, first true last true"},
	"registry/referrers":          {text: referred},
	"registry/referrers-fallback": {text: referred, setup: Setup{NoAPI: true}},
	"registry/referrers-none":     {text: "referrers: ok\n0"},
	"registry/offline":            {text: `resolve: UNAVAILABLE OFFLINE`, setup: Setup{Offline: true}},

	"events/publish-subscribe": {text: `
subscribe: ok
event: ok
flood.one from /plugins/flood application/json {"n":1} hops 0 dropped 0
event: ok
flood.one from /plugins/flood application/json {"n":2} hops 0 dropped 0`},
	"events/poll": {text: `
0 events, subscription true
flood.poll {"n":1}
flood.poll {"n":2}
then 1, dropped 0`},
	"events/ring-101": {text: "100 events, dropped 1\nfirst {\"n\":2} last {\"n\":101}"},
	"events/hops-8": {text: `
call: ok
exit 0 signal 0 stdout "dropped 0" stderr ""
call: ok
exit 0 signal 0 stdout "dropped 1" stderr ""
flood.hops hops 7`},
	"events/own-do-not-return": {text: "publish: ok\nsubscribers 0\nflood.after"},
	"events/topic-denied":      {text: `publish: PERMISSION_DENIED CAPABILITY_DENIED`},
	"events/reserved-topic":    {text: `publish: INVALID_ARGUMENT BAD_TOPIC`},
	"events/bad-topic":         {text: `publish: INVALID_ARGUMENT BAD_TOPIC`},
	"events/data-too-large":    {text: `publish: RESOURCE_EXHAUSTED TOO_LARGE`},
	"events/unknown-poll": {text: `
poll: NOT_FOUND KEY_NOT_FOUND
too many: INVALID_ARGUMENT BAD_MESSAGE
denied: PERMISSION_DENIED CAPABILITY_DENIED
no topics: INVALID_ARGUMENT BAD_TOPIC`},

	"state/put-get": {text: `
put: ok
owner kit revision true
get: ok
kit a/b = value
get: ok
kit a/b = value
get: NOT_FOUND KEY_NOT_FOUND`},
	"state/add":         {text: "add: ok\nn \"5\"\nadd: ok\nn \"-2\"\nadd: INVALID_ARGUMENT BAD_MESSAGE\nn \"\"\nput: ok\nadd: INVALID_ARGUMENT BAD_MESSAGE\ntext \"\""},
	"state/bad-key":     {text: "put: INVALID_ARGUMENT BAD_KEY\nget: INVALID_ARGUMENT BAD_KEY"},
	"state/ttl-expired": {text: "put: ok\nget: ok\nkit t = v\nget: NOT_FOUND KEY_NOT_FOUND"},
	"state/create-only": {text: "create: ok\ncreate: ABORTED STATE_CONFLICT\nget: ok\nkit once = first"},
	"state/stale-revision": {text: `
put: ok
put: ok
put: ABORTED STATE_CONFLICT
current revision true
get: ok
kit k = 2`},
	"state/delete":         {text: "put: ok\ndelete: ok\ndelete: ok\nget: NOT_FOUND KEY_NOT_FOUND"},
	"state/list-prefix":    {text: "put: ok\nput: ok\nput: ok\nl/a 0\nl/b 0\nlist: ok"},
	"state/two-writers":    {text: "put: ok\nok 1, ABORTED STATE_CONFLICT 7\nget: ok\nthe winner's value true"},
	"state/foreign-denied": {text: "get: PERMISSION_DENIED CAPABILITY_DENIED\nput: PERMISSION_DENIED CAPABILITY_DENIED"},
	"state/over-quota":     {text: strings.Repeat("put: ok\n", 5) + "put: RESOURCE_EXHAUSTED QUOTA"},
	"state/value-too-big":  {text: `put: RESOURCE_EXHAUSTED TOO_LARGE`},

	"plugins/list": {text: "list: ok\nexit 1.2.3 with"},
	"plugins/exit-3": {text: `
call: ok
exit 3 signal 0 stdout "" stderr ""
call: ok
exit 0 signal 0 stdout "" stderr ""`},
	"plugins/stdin-1MiB":   {text: "call: ok\nexit 0 signal 0 1048576 bytes same true"},
	"plugins/stdin-8MiB":   {text: "call: ok\nexit 0 signal 0 8388608 bytes same true"},
	"plugins/output-order": {text: "call: ok\nexit 0 signal 0 stdout \"o0o1o2\" stderr \"e0e1e2\""},
	"plugins/deadline-inherited": {before: deadlineInAnHour, text: `
call: ok
exit 0 signal 0 stdout "the caller's" stderr ""
call: ok
exit 0 signal 0 stdout "the caller's" stderr ""
call: ok
exit 0 signal 0 stdout "earlier" stderr ""`},
	"plugins/depth-8": {text: `call: ok
exit 0 signal 0 stdout "chain1 depth 1 > chain2 depth 2 > chain3 depth 3 > chain4 depth 4 > chain5 depth 5 > chain6 depth 6 > chain7 depth 7 > CALL_DEPTH" stderr ""`},
	"plugins/cycle": {text: `
call: FAILED_PRECONDITION CALL_CYCLE
call: ok
exit 0 signal 0 stdout "ring depth 1 > CALL_CYCLE" stderr ""`},
	"plugins/not-found":   {text: `call: NOT_FOUND PLUGIN_NOT_FOUND`},
	"plugins/call-denied": {text: `call: PERMISSION_DENIED CAPABILITY_DENIED`},
	"plugins/timeout":     {text: `call: DEADLINE_EXCEEDED TIMEOUT`},
	"plugins/blob-delegated": {text: `
put: ok
call: ok
exit 0 signal 0 stdout "NOT_CACHED" stderr ""
call: ok
exit 0 signal 0 stdout "handed on" stderr ""`},
	"plugins/blob-foreign": {text: `call: NOT_FOUND NOT_CACHED`},
	"plugins/own-grants":   {text: "call: ok\nexit 0 signal 0 stdout \"CAPABILITY_DENIED\" stderr \"\""},
	"plugins/cancel-kills": {text: "call: ok\nasleep\nclose: ok", after: calleeEnded},
	"plugins/args-not-widened": {text: `
call: ok
exit 0 signal 0 stdout "resolved" stderr ""
call: ok
exit 0 signal 0 stdout "CAPABILITY_DENIED" stderr ""`},
	"plugins/no-start": {text: `call: INVALID_ARGUMENT BAD_MESSAGE`},

	"http/get":              {text: "200 v 5 bytes: hello\ndo: ok"},
	"http/post":             {text: "200  6 bytes: abcdef\ndo: ok"},
	"http/body-blob":        {text: "put: ok\n200  14 bytes: from the cache\ndo: ok"},
	"http/sink-digest":      {text: "create: ok\n200  1048576 bytes: \ndo: ok\nsame true\ncommit: ok\nsame true size 1048576"},
	"http/body-1MiB":        {text: "do: ok\n1048576 bytes"},
	"http/body-10MiB":       {text: "do: ok\n10485760 bytes"},
	"http/redirect-allowed": {text: "200  5 bytes: hello\ndo: ok"},
	"http/redirect-denied":  {text: "do: PERMISSION_DENIED REDIRECT_DENIED"},
	"http/no-redirects":     {text: "do: ok\n302 /hello"},
	"http/private-address":  {text: "do: PERMISSION_DENIED ADDRESS_DENIED"},
	"http/url-denied":       {text: "do: PERMISSION_DENIED CAPABILITY_DENIED"},
	"http/bad-url":          {text: strings.Repeat("do: INVALID_ARGUMENT BAD_URL\n", 4)},
	"http/timeout":          {text: "do: DEADLINE_EXCEEDED TIMEOUT"},

	"log/batch":         {text: `log: ok`, after: logged("INFO first plugin=kit attr=[k=v]", "ERROR second plugin=kit")},
	"log/control-chars": {text: `log: ok`, after: logged("WARN a\uFFFD[31mb c\uFFFDd plugin=kit")},
	"log/too-large":     {text: `log: RESOURCE_EXHAUSTED TOO_LARGE`, after: logged()},

	"term/prompt-answer": {text: "prompt: ok\nyes defaulted false\nprompt: ok\nyes defaulted false"},
	"term/prompt-no-tty": {text: "prompt: FAILED_PRECONDITION NO_TERMINAL\nprompt: ok\ndflt defaulted true"},
	"term/prompt-kind":   {text: "prompt: INVALID_ARGUMENT BAD_MESSAGE\nprompt: INVALID_ARGUMENT BAD_MESSAGE"},
	"term/prompt-denied": {text: "prompt: PERMISSION_DENIED CAPABILITY_DENIED\nprompt: PERMISSION_DENIED CAPABILITY_DENIED"},
	"term/rows-json": {text: `
rows "json" [n] {"n":1} {"n":2}
rows: ok
rows: ok
after the end: INVALID_ARGUMENT BAD_MESSAGE`},
	"term/rows-at-exit": {text: "rows: ok\nrows \"\" [n] {\"n\":1}"},
	"term/bad-row": {text: `
[1]: INVALID_ARGUMENT BAD_MESSAGE
{: INVALID_ARGUMENT BAD_MESSAGE
"x": INVALID_ARGUMENT BAD_MESSAGE
: INVALID_ARGUMENT BAD_MESSAGE`},
	"term/progress": {text: strings.TrimSuffix(strings.Repeat("report: ok\n", 5), "\n"), after: reportedEnd},

	"carrier/4MiB":            {text: "describe: ok\nnext call: ok"},
	"carrier/4MiB+1":          {text: "describe: RESOURCE_EXHAUSTED TOO_LARGE\nnext call: ok"},
	"carrier/reply-too-large": {text: "get: RESOURCE_EXHAUSTED TOO_LARGE\nnext call: ok"},
	"carrier/65th-stream":     {text: "stream 65: RESOURCE_EXHAUSTED TOO_MANY\nunary: ok\ndescribe: ok"},
	"carrier/bad-handle": {text: strings.Repeat("close: INVALID_ARGUMENT BAD_HANDLE\n", 4) + `put: ok
open: ok
commit of a blob: INVALID_ARGUMENT BAD_HANDLE
close: ok
close again: INVALID_ARGUMENT BAD_HANDLE`},
	"carrier/65th-handle": {text: `
put: ok
open 65: RESOURCE_EXHAUSTED TOO_MANY
close: ok
open: ok
a new number true`},
	"carrier/half-close":           {text: "call: ok\nexit 0 signal 0 stdout \"abc\" stderr \"\""},
	"carrier/cancel-midstream":     {text: "describe: ok"},
	"carrier/slow-reader-isolated": {text: "list: ok\nlist: end\n80 entries"},
	"carrier/parallel-32":          {text: `32 results, all ok "hello"`},
	"carrier/panic-is-internal":    {text: "get: INTERNAL INTERNAL\nnext call: ok"},
	"carrier/deadline-midcall":     {text: "poll: DEADLINE_EXCEEDED TIMEOUT\nnext call: ok"},
}

// referred is what registry/referrers gives, with the API and without.
const referred = `
resolve: ok
config: ok
manifest: ok
push: ok
text/about true
referrers: ok
none of another type: ok
0`

// deadlineInAnHour gives the run a deadline.
func deadlineInAnHour(_ testing.TB, w *World) { w.Deadline = time.Now().Add(time.Hour) }

// bigBlob puts a blob of 256 MiB into the cache, all zero.
func bigBlob(t testing.TB, w *World) {
	if testing.Short() {
		t.Skip("reads 256 MiB")
	}
	leave(t, w, bytes.NewReader(make([]byte, 1<<20)), 256)
}

// leftBehind puts blobs into the cache that an earlier run of the guest left.
func leftBehind(texts ...string) func(testing.TB, *World) {
	return func(t testing.TB, w *World) {
		for _, text := range texts {
			leave(t, w, strings.NewReader(text), 1)
		}
	}
}

// leave commits a blob of the guest that repeats piece.
func leave(t testing.TB, w *World, piece io.ReadSeeker, times int) {
	view, err := w.Cache(Name, "")
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close() // committed
	b, err := view.Create(t.Context(), hostabi.Descriptor{})
	for range times {
		if err == nil {
			_, err = piece.Seek(0, io.SeekStart)
		}
		if err == nil {
			_, err = io.Copy(b, piece)
		}
	}
	if err == nil {
		_, err = b.Commit(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// manyTags gives app:v1 a thousand tags more.
func manyTags(t testing.TB, w *World) {
	if testing.Short() {
		t.Skip("sets a thousand tags")
	}
	p, err := w.Pusher()
	for i := range 1000 {
		if err == nil {
			err = p.Tag(t.Context(), w.Registry+"/app:v1", fmt.Sprintf("t%04d", i))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// calleeEnded finds that the run of "sleep" is over: the session waited for it.
func calleeEnded(t testing.TB, w *World) {
	if n := w.Ended.Load(); n != 1 {
		t.Errorf("%d runs of the callee have ended", n)
	}
}

// nothingOwned finds no blob that the guest committed.
func nothingOwned(t testing.TB, w *World) {
	view, err := w.Cache(Name, "")
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close() // only read
	for b, err := range view.List(t.Context(), Name) {
		t.Errorf("left in the cache: %v %v", b.Digest, err)
	}
}

func logged(want ...string) func(testing.TB, *World) {
	return func(t testing.TB, w *World) {
		if got := strings.Join(w.Log.Plugin(), "\n"); got != strings.Join(want, "\n") {
			t.Errorf("log has\n%s\nwant\n%s", got, strings.Join(want, "\n"))
		}
	}
}

// reportedEnd finds the last report shown, and not all five.
func reportedEnd(t testing.TB, w *World) {
	w.Terminal.mu.Lock()
	defer w.Terminal.mu.Unlock()
	r := w.Terminal.Reports
	if len(r) == 0 || r[len(r)-1].State != hostabi.ProgressDone || r[len(r)-1].Current != 4 {
		t.Errorf("reports shown: %+v", r)
	}
}

// wholeCache is what a plugin needs that manages the cache.
var wholeCache = map[hostabi.Capability]sandbox.Scopes{
	hostabi.CacheRead:  {Scope: []string{"any"}},
	hostabi.CacheWrite: {Scope: []string{"any", "own"}},
}

// damaged changes a byte of the seeded blob behind the back of the cache.
func damaged(t testing.TB, w *World) {
	view, err := w.Cache("", "")
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close() // only read
	f, err := view.Open(t.Context(), hostabi.DigestOf([]byte("private blob of somebody else")))
	if err != nil {
		t.Fatal(err)
	}
	name := f.Name()
	if err := errors.Join(f.Close(), os.Chmod(name, 0o600)); err != nil {
		t.Fatal(err)
	}
	b, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err == nil {
		_, err = b.WriteAt([]byte("P"), 0)
		err = errors.Join(err, b.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}
