package client

import (
	"context"
	"io"
	"iter"
	"log/slog"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

var errStub = hostabi.Errorf(hostabi.ReasonInternal, "not built")

type Client struct{}
type Option func(*Client)

func NewClient(opts ...Option) (*Client, error)     { return nil, errStub }
func WithConfig(values any) Option                  { return nil }
func WithLogger(l *slog.Logger) Option              { return nil }
func WithSession(s hostabi.Session) Option          { return nil }
func WithCallTimeout(d time.Duration) Option        { return nil }
func (c *Client) Session() (hostabi.Session, error) { return nil, errStub }
func (c *Client) Close() error                      { return nil }

type Description struct {
	ABI, Version, Backend string
	Minor                 uint32
	Methods               []string
	Grants                []hostabi.Grant
	Limits                Limits
	Invocation            InvocationInfo
	Terminal              hostabi.Terminal
}
type Limits struct {
	MessageBytes, Streams, Handles int
	MemoryBytes                    int64
	Deadline                       time.Time
	HTTPConcurrency, CallsLeft     int
}
type InvocationInfo struct {
	ID, Plugin, Version, Command, Kind, Caller string
	Depth                                      int
	TraceID, TraceParent                       string
	Paths                                      []hostabi.PathArg
}

func (d *Description) Has(method string) bool                        { return false }
func (c *Client) Describe(ctx context.Context) (*Description, error) { return nil, errStub }

func (c *Client) Pull(ctx context.Context, ref string, w io.Writer, opts ...RefOption) error {
	return errStub
}
func (c *Client) Push(ctx context.Context, ref string, r io.Reader, mediaType string, opts ...PushOption) error {
	return errStub
}
func (c *Client) List(ctx context.Context, repository string) ([]string, error) { return nil, errStub }
func (c *Client) Fetch(ctx context.Context, ref string, opts ...RefOption) ([]Artifact, error) {
	return nil, errStub
}
func (c *Client) Resolve(ctx context.Context, ref string, opts ...RefOption) (Descriptor, error) {
	return Descriptor{}, errStub
}
func (c *Client) PushArtifact(ctx context.Context, ref string, a Spec, opts ...PushOption) (Descriptor, error) {
	return Descriptor{}, errStub
}
func (c *Client) Copy(ctx context.Context, src, dst string, opts ...RefOption) (Descriptor, error) {
	return Descriptor{}, errStub
}
func (c *Client) Tag(ctx context.Context, ref, tag string) error { return errStub }
func (c *Client) Referrers(ctx context.Context, ref, artifactType string) iter.Seq2[Descriptor, error] {
	return nil
}

type refOptions struct{}
type RefOption func(*refOptions)
type pushOptions struct{}
type PushOption func(*pushOptions)

func WithPlatform(p string) RefOption    { return nil }
func AllPlatforms() RefOption            { return nil }
func WithLayer(title string) RefOption   { return nil }
func WithTags(tags ...string) PushOption { return nil }

type callOptions struct{}
type CallOption func(*callOptions)

func (c *Client) CallPlugin(ctx context.Context, name string, args []string, opts ...CallOption) (*Result, error) {
	return nil, errStub
}
func WithStdin(r io.Reader) CallOption               { return nil }
func WithBlobs(d ...Digest) CallOption               { return nil }
func WithOutput(stdout, stderr io.Writer) CallOption { return nil }

type PluginInfo struct {
	Name, Version, Description, Backend string
	Commands                            []string
}

func (c *Client) Plugins(ctx context.Context) ([]PluginInfo, error) { return nil, errStub }

type publishOptions struct{}
type PublishOption func(*publishOptions)

func (c *Client) Publish(ctx context.Context, topic string, data any, opts ...PublishOption) error {
	return errStub
}
func WithAttribute(key, value string) PublishOption { return nil }

type Subscription struct{}

func (c *Client) Subscribe(ctx context.Context, topics ...string) (*Subscription, error) {
	return nil, errStub
}
func (s *Subscription) Next(ctx context.Context) (Event, error) { return Event{}, errStub }
func (s *Subscription) Close() error                            { return nil }

type stateOptions struct{}
type StateOption func(*stateOptions)

func (c *Client) SetState(ctx context.Context, key string, value []byte, opts ...StateOption) (revision uint64, err error) {
	return 0, errStub
}
func (c *Client) GetState(ctx context.Context, key string, opts ...StateOption) (*StateEntry, error) {
	return nil, errStub
}
func (c *Client) DeleteState(ctx context.Context, key string, opts ...StateOption) error {
	return errStub
}
func (c *Client) ListState(ctx context.Context, prefix string, opts ...StateOption) iter.Seq2[StateEntry, error] {
	return nil
}
func WithTTL(d time.Duration) StateOption { return nil }
func WithOwner(plugin string) StateOption { return nil }
func IfRevision(rev uint64) StateOption   { return nil }
func SetJSON(ctx context.Context, c *Client, key string, v any, opts ...StateOption) (uint64, error) {
	return 0, errStub
}
func GetJSON[T any](ctx context.Context, c *Client, key string, opts ...StateOption) (v T, revision uint64, err error) {
	return v, 0, errStub
}

func (c *Client) Config(ctx context.Context, into any) error                  { return errStub }
func (c *Client) ConfigValue(ctx context.Context, key string, into any) error { return errStub }
func (c *Client) Secret(ctx context.Context, key string) (string, error)      { return "", errStub }

type Cache struct{}
type Blob struct{}
type BlobWriter struct{}
type blobOptions struct{}
type BlobOption func(*blobOptions)
type listOptions struct{}
type ListOption func(*listOptions)

func (b *Blob) Read(p []byte) (int, error)                         { return 0, errStub }
func (b *Blob) ReadAt(p []byte, off int64) (int, error)            { return 0, errStub }
func (b *Blob) Seek(offset int64, whence int) (int64, error)       { return 0, errStub }
func (b *Blob) Close() error                                       { return errStub }
func (b *Blob) Path() string                                       { return "" }
func (b *Blob) Info() BlobInfo                                     { return BlobInfo{} }
func (w *BlobWriter) Write(p []byte) (int, error)                  { return 0, errStub }
func (w *BlobWriter) Close() error                                 { return errStub }
func (w *BlobWriter) Path() string                                 { return "" }
func (w *BlobWriter) Commit(ctx context.Context) (BlobInfo, error) { return BlobInfo{}, errStub }

func (c *Client) Cache() *Cache                                       { return nil }
func (c *Cache) Stat(ctx context.Context, d Digest) (BlobInfo, error) { return BlobInfo{}, errStub }
func (c *Cache) Open(ctx context.Context, d Digest) (*Blob, error)    { return nil, errStub }
func (c *Cache) Put(ctx context.Context, r io.Reader, opts ...BlobOption) (BlobInfo, error) {
	return BlobInfo{}, errStub
}
func (c *Cache) Create(ctx context.Context, opts ...BlobOption) (*BlobWriter, error) {
	return nil, errStub
}
func (c *Cache) List(ctx context.Context, opts ...ListOption) iter.Seq2[BlobInfo, error] { return nil }
func (c *Cache) Pin(ctx context.Context, d Digest, ttl time.Duration) error              { return errStub }
func WithExpected(d Digest, size int64) BlobOption                                       { return nil }
func WithMediaType(t string) BlobOption                                                  { return nil }
func WithSource(repo string) ListOption                                                  { return nil }

type Progress struct{}

func (c *Client) Progress(name string, total int64) *Progress { return nil }
func (p *Progress) Add(n int64)                               {}
func (p *Progress) Reader(r io.Reader) io.Reader              { return r }
func (p *Progress) Done(err error)                            {}
func (c *Client) Logger() *slog.Logger                        { return nil }
func (c *Client) Rows(v any) error                            { return errStub }
func (c *Client) Confirm(ctx context.Context, question string, fallback bool) (bool, error) {
	return false, errStub
}
func (c *Client) Ask(ctx context.Context, question string, secret bool) (string, error) {
	return "", errStub
}
func (c *Client) Do(ctx context.Context, req *HTTPRequest) (*HTTPResponse, error) {
	return nil, errStub
}

var ErrNoHost, ErrDenied, ErrNotFound, ErrExists, ErrConflict, ErrInvalid, ErrAuth, ErrUnavailable, ErrOffline, ErrQuota, ErrDigest, ErrUnsupported error

type Artifact struct {
	Ref                       string
	Root, Manifest            Descriptor
	Layers                    []Layer
	Annotations               map[string]string
	CachedBytes, FetchedBytes int64
}
type Layer struct {
	Descriptor
	Title string
}
type Spec struct {
	ArtifactType string
	Config       *Content
	Layers       []Content
	Annotations  map[string]string
	Subject      *Descriptor
	Platform     *Platform
	Children     []Spec
}
type Content struct {
	MediaType, Title string
	Digest           Digest
	Open             func() (io.ReadCloser, error)
	Annotations      map[string]string
}
type Result struct {
	ExitCode       int
	Stdout, Stderr []byte
}

func (r *Result) String() string { return string(r.Stdout) }

type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string { return "exit" }
func (e *ExitError) Unwrap() error { return e.Err }

type HTTPRequest struct {
	Method, URL string
	Header      map[string][]string
	Body        io.Reader
	BodyBlob    Digest
	Sink        *BlobWriter
}
type HTTPResponse struct {
	Status int
	Header map[string][]string
	URL    string
	Body   io.ReadCloser
}

func Main(app App) {}
func (a App) Run(ctx context.Context, std Stdio, s hostabi.Session, argv ...string) (exit int) {
	return 1
}

type App struct {
	Name, Version, Summary string
	Commands               []Command
	Options                []Option
}
type Command struct {
	Name, Summary, Help string
	Aliases, Examples   []string
	Args                []Arg
	Flags               []Flag
	Commands            []Command
	Hidden              bool
	Events              []string
	Run                 func(ctx context.Context, in *Invocation) error
	Complete            func(ctx context.Context, in *Invocation, word string) ([]string, error)
}
type Stdio struct {
	In       io.Reader
	Out, Err io.Writer
}
type Arg struct {
	Name, Summary, Type, Mode string
	Required, Repeat          bool
}
type Flag struct {
	Name, Short, Summary, Type, Mode, Default string
	Values                                    []string
	Repeat, Required                          bool
}
type Invocation struct {
	*Client
	Command        string
	Args           []string
	Event          *Event
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

func (in *Invocation) Value(flag string) string           { return "" }
func (in *Invocation) Values(flag string) []string        { return nil }
func (in *Invocation) Bool(flag string) bool              { return false }
func (in *Invocation) Int(flag string) int64              { return 0 }
func (in *Invocation) Duration(flag string) time.Duration { return 0 }
func (in *Invocation) Changed(flag string) bool           { return false }
func (in *Invocation) Printf(format string, a ...any)     {}
func Usagef(format string, a ...any) error                { return errStub }
