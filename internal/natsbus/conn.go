// Package natsbus moves the events and the state of plugins to a NATS server with JetStream (events-state.md
// sections 5 and 7). It wraps the local bus and holds no other distributed code: order, storage and
// comparisons are those of the server. Whoever may publish there is trusted like a teammate, not like the
// host. Nothing is connected before the first use. Start with New, then Conn.Bus and Conn.State.
package natsbus

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/delivery-station/ds/hostabi"
)

const (
	callTimeout = 2 * time.Second        // one request to the server, and the wait for the acknowledgement of an event
	firstDelay  = 250 * time.Millisecond // between attempts to reach it again
	lastDelay   = 2 * time.Second
	failedFor   = 5 * time.Second // a server that could not be reached is not tried again for so long
	maxPayload  = 256 << 10       // of an event, as JSON
)

// Options configure a Conn.
type Options struct {
	Servers           []string // first reachable wins; tls:// for TLS
	CredsFile         string   // wins over user and token
	User, Password    string
	Token             string
	CAFile            string                   // of the server's certificate, default the system's
	CertFile, KeyFile string                   // of a client certificate
	Prefix            string                   // of subjects, stream and bucket, one per team
	ConnectTimeout    time.Duration            // for all servers together, default 2 s
	CallTimeout       time.Duration            // for one request, default 2 s
	FlushTime         time.Duration            // for what waits when a Bus is closed, default half a second
	Replicas          int                      // of stream and bucket when they are created
	EventRetention    time.Duration            // of the stream when it is created
	ID                string                   // bus id of this process, 16 hex; names the connection
	Scrub             func(text []byte) []byte // takes known secrets out of what is published, default none
	Warn              func(text string)        // tells the user, default nobody
	Log               *slog.Logger
	Clock             func() time.Time
}

// Conn is the one connection of this process, made at the first use. It is safe for concurrent use.
type Conn struct {
	o   Options
	bad error // what is wrong with o

	mu     sync.Mutex // held while connecting: whoever comes then waits for the same answer
	nc     *nats.Conn
	js     jetstream.JetStream
	failed *hostabi.Error
	until  time.Time // failed is the answer so long
	closed bool

	back  chan struct{} // closed and replaced at each reconnect; wakes who waits to send again
	ended chan struct{} // closed when nc and its goroutines have ended
}

// New makes a connection that is not connected. What is wrong with the options is the error of the first use.
func New(o Options) *Conn {
	if o.ConnectTimeout <= 0 {
		o.ConnectTimeout = 2 * time.Second
	}
	if o.CallTimeout <= 0 {
		o.CallTimeout = callTimeout
	}
	if o.FlushTime <= 0 {
		o.FlushTime = flushTime
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	if o.Scrub == nil {
		o.Scrub = func(b []byte) []byte { return b }
	}
	c := &Conn{o: o, back: make(chan struct{})}
	c.o.Servers = nil
	var login *url.Userinfo
	for _, s := range o.Servers {
		user, ok := c.addServer(s)
		switch {
		case !ok:
			c.bad = hostabi.Errorf(hostabi.ReasonConfigValue, "an entry of nats.servers is not nats://HOST[:PORT] or tls://HOST[:PORT]")
		case user == nil:
		case login != nil && *user != *login: // one would be sent to the host of the other
			c.bad = hostabi.Errorf(hostabi.ReasonConfigValue, "entries of nats.servers have different credentials: there is one login for all servers")
		default:
			login = user
		}
	}
	if len(o.Servers) == 0 {
		c.bad = hostabi.Errorf(hostabi.ReasonConfigValue, "nats.servers is empty")
	}
	if strings.Trim(o.Prefix, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" || o.Prefix == "" {
		c.bad = hostabi.Errorf(hostabi.ReasonConfigValue, "nats.prefix is not made of letters, digits, _ and -")
	}
	return c
}

// ID is the bus id that the connection is named after.
func (c *Conn) ID() string { return c.o.ID }

// addServer takes user and password out of an address, so that no error of the client can repeat them.
func (c *Conn) addServer(s string) (user *url.Userinfo, ok bool) {
	if !strings.Contains(s, "://") {
		s = "nats://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "nats" && u.Scheme != "tls" || u.Path != "" && u.Path != "/" {
		return nil, false
	}
	if u.User != nil {
		name := u.User.Username()
		if password, ok := u.User.Password(); ok {
			c.o.User, c.o.Password = name, password
		} else {
			c.o.Token = name
		}
	}
	c.o.Servers = append(c.o.Servers, u.Scheme+"://"+u.Host)
	return u.User, true
}

// open is the connection. The first use makes it; when that fails, everybody gets the error for a while and
// then somebody tries again. Errors: NATS_UNAVAILABLE.
func (c *Conn) open(ctx context.Context) (jetstream.JetStream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.bad != nil:
		return nil, c.bad
	case c.closed:
		return nil, unavailable("the connection is closed")
	case c.nc != nil:
		return c.js, nil
	case c.failed != nil && c.o.Clock().Before(c.until):
		return nil, c.failed
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	ended := make(chan struct{})
	nc, err := nats.Connect(strings.Join(c.o.Servers, ","), append(c.options(), nats.ClosedHandler(func(*nats.Conn) { close(ended) }))...)
	if err != nil {
		return nil, c.fail(c.connectError(err))
	}
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(batchSize), jetstream.WithPublishAsyncTimeout(callTimeout))
	if err != nil {
		nc.Close()
		return nil, c.fail(unavailable("no JetStream: %w", err))
	}
	c.nc, c.js, c.ended, c.failed = nc, js, ended, nil
	return js, nil
}

// fail keeps the answer for whoever asks next; c.mu is held.
func (c *Conn) fail(err *hostabi.Error) error {
	c.failed, c.until = err, c.o.Clock().Add(failedFor)
	return err
}

// connected is open for calls that must not wait for a lost connection to come back.
func (c *Conn) connected(ctx context.Context) (jetstream.JetStream, error) {
	js, err := c.open(ctx)
	if err == nil && !js.Conn().IsConnected() {
		return nil, unavailable("the connection to the NATS server is lost")
	}
	return js, err
}

func (c *Conn) options() []nats.Option {
	o := &c.o
	opts := []nats.Option{
		nats.Name("ds " + o.ID), nats.NoEcho(), nats.Timeout(o.ConnectTimeout / time.Duration(len(o.Servers))), nats.DontRandomize(),
		// What is not sent is kept here, counted, and not in the buffer of the client.
		nats.ReconnectBufSize(-1), nats.MaxReconnects(-1), nats.IgnoreAuthErrorAbort(), nats.CustomReconnectDelay(delay),
		nats.PingInterval(20 * time.Second), nats.MaxPingsOutstanding(2),
		// A server that does not read holds up nobody, also not the end. What was in the buffer is lost then, maybe a subscription: begin again.
		nats.FlusherTimeout(o.CallTimeout), nats.ReconnectOnFlusherError(),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { o.Log.Debug("nats: connection lost", "err", err) }),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			o.Log.Debug("nats: connected again", "server", nc.ConnectedAddr())
			c.mu.Lock()
			defer c.mu.Unlock()
			close(c.back)
			c.back = make(chan struct{})
		}),
		nats.ErrorHandler(func(_ *nats.Conn, s *nats.Subscription, err error) {
			subject := ""
			if s != nil {
				subject = s.Subject
			}
			o.Log.Warn("nats", "err", err, "subject", subject)
		}),
	}
	switch {
	case o.CredsFile != "":
		opts = append(opts, nats.UserCredentials(o.CredsFile))
	case o.User != "":
		opts = append(opts, nats.UserInfo(o.User, o.Password))
	case o.Token != "":
		opts = append(opts, nats.Token(o.Token))
	}
	if o.CAFile != "" {
		opts = append(opts, nats.RootCAs(o.CAFile))
	}
	if o.CertFile != "" {
		opts = append(opts, nats.ClientCert(o.CertFile, o.KeyFile))
	}
	return opts
}

// delay doubles up to lastDelay, less a random part, so that a team does not come back at once.
func delay(attempts int) time.Duration {
	d := min(firstDelay<<min(max(attempts-1, 0), 10), lastDelay)
	return d - rand.N(d/4) //nolint:gosec // jitter, not a secret
}

// again is closed when the connection is there again.
func (c *Conn) again() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.back
}

// connectError says why there is no connection. The addresses in it hold no user or password.
func (c *Conn) connectError(err error) *hostabi.Error {
	where := strings.Join(c.o.Servers, ", ")
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked):
		return unavailable("%s refuses the credentials of nats.creds_file, nats.user or nats.token", where).WithFix("ds config explain nats.servers")
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return unavailable("a file that nats.creds_file, nats.ca_file, nats.cert_file or nats.key_file names cannot be read: %w", err)
	}
	if errors.Is(err, nats.ErrNoServers) || errors.Is(err, nats.ErrTimeout) { // says no more than this
		return unavailable("no NATS server answers at %s", where).WithFix("ds config explain nats.servers")
	}
	return unavailable("no NATS server at %s: %w", where, err).WithFix("ds config explain nats.servers")
}

func unavailable(format string, a ...any) *hostabi.Error {
	return hostabi.Errorf(hostabi.ReasonNATSUnavailable, format, a...)
}

// callError is the error of a request about the object what.
func callError(what string, err error) error {
	if h, ok := errors.AsType[*hostabi.Error](err); ok {
		return h
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	switch {
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount),
		errors.Is(err, jetstream.ErrNoStreamResponse):
		return unavailable("%s: the NATS server has no JetStream for this account: %w", what, err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return unavailable("%s: no answer, or no permission: %w", what, err)
	}
	return unavailable("%s: %w", what, err)
}

// Close ends the connection. A Bus of it is closed before. It is idempotent.
func (c *Conn) Close() error {
	c.mu.Lock()
	nc, ended := c.nc, c.ended
	c.closed = true
	c.mu.Unlock()
	if nc == nil {
		return nil
	}
	nc.Close()
	select {
	case <-ended:
		return nil
	case <-time.After(c.o.CallTimeout):
		return errors.New("nats: the connection does not end")
	}
}
