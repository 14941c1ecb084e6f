package natsbus_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/bustest"
	"github.com/delivery-station/ds/internal/dstest/natstest"
	"github.com/delivery-station/ds/internal/natsbus"
)

func TestNoServer(t *testing.T) {
	// One port where nobody listens, one that accepts and says nothing.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mute := l.Addr().String()
	t.Cleanup(func() { _ = l.Close() })
	srv := startServer(t, natstest.Options{})
	srv.Stop()
	for name, servers := range map[string][]string{"refused": {"nats://" + srv.Addr()}, "mute": {"nats://" + mute}, "both": {"nats://u:p@" + srv.Addr(), "tls://" + mute}} {
		t.Run(name, func(t *testing.T) {
			n := start(t, natsbus.Options{Servers: servers, Prefix: "ds", ConnectTimeout: 300 * time.Millisecond})
			_, _, err := n.Publish(t.Context(), bustest.Event("a"))
			wantReason(t, err, hostabi.ReasonNATSUnavailable)
			_, err = n.Subscribe(t.Context(), []string{"a"})
			wantReason(t, err, hostabi.ReasonNATSUnavailable)
			_, err = n.state.Get(t.Context(), "s3", "k")
			wantReason(t, err, hostabi.ReasonNATSUnavailable)
			for _, err := range n.state.List(t.Context(), "s3", "") {
				wantReason(t, err, hostabi.ReasonNATSUnavailable)
			}
			if len(n.warnings()) != 0 {
				t.Errorf("warned: %q", n.warnings())
			}
		})
	}
}

func TestBadOptions(t *testing.T) {
	for name, o := range map[string]natsbus.Options{
		"no server": {Prefix: "ds"}, "scheme": {Prefix: "ds", Servers: []string{"http://u:canary@h"}}, "path": {Prefix: "ds", Servers: []string{"nats://canary@h/x"}},
		"no url": {Prefix: "ds", Servers: []string{"nats://u:canary@h:port:%zz"}}, "prefix": {Prefix: "a.*", Servers: []string{"h"}}, "empty prefix": {Servers: []string{"h"}},
		"two logins": {Prefix: "ds", Servers: []string{"nats://u:canary-1@h", "nats://i", "nats://u:canary-2@j"}}, "login and token": {Prefix: "ds", Servers: []string{"nats://u:canary@h", "nats://canary@i"}},
	} {
		t.Run(name, func(t *testing.T) {
			err := start(t, o).Connect(t.Context())
			wantReason(t, err, hostabi.ReasonConfigValue)
			if strings.Contains(fmt.Sprintf("%v %+v", err, hostabi.AsError(err)), "canary") {
				t.Errorf("the error tells a secret: %v", err)
			}
		})
	}
}

// TestCredentials: right ones get in, wrong ones do not, and neither is told.
func TestCredentials(t *testing.T) {
	byUser := startServer(t, natstest.Options{User: "team", Password: "canary-1"})
	byToken := startServer(t, natstest.Options{Token: "canary-2"})
	for name, c := range map[string]struct {
		o  natsbus.Options
		ok bool
	}{
		"user":           {natsbus.Options{Servers: []string{byUser.Addr()}, User: "team", Password: "canary-1"}, true},
		"user in url":    {natsbus.Options{Servers: []string{"nats://team:canary-1@" + byUser.Addr()}}, true},
		"wrong password": {natsbus.Options{Servers: []string{"nats://team:canary-3@" + byUser.Addr()}}, false},
		"nobody":         {natsbus.Options{Servers: []string{byUser.Addr()}}, false},
		"one login":      {natsbus.Options{Servers: []string{"nats://team:canary-1@" + byUser.Addr(), "nats://team:canary-1@" + byUser.Addr(), byUser.Addr()}}, true},
		"token":          {natsbus.Options{Servers: []string{byToken.Addr()}, Token: "canary-2"}, true},
		"token in url":   {natsbus.Options{Servers: []string{"nats://canary-2@" + byToken.Addr()}}, true},
		"wrong token":    {natsbus.Options{Servers: []string{byToken.Addr()}, Token: "canary-4"}, false},
		"missing file":   {natsbus.Options{Servers: []string{byToken.Addr()}, CredsFile: filepath.Join(t.TempDir(), "none.creds")}, false},
		"missing ca":     {natsbus.Options{Servers: []string{byToken.Addr()}, Token: "canary-2", CAFile: filepath.Join(t.TempDir(), "none.pem")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			c.o.Prefix, c.o.ConnectTimeout, c.o.Log = "ds", patience, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			n := start(t, c.o)
			err := n.Connect(t.Context())
			if c.ok && err != nil {
				t.Error(err)
			}
			if !c.ok {
				wantReason(t, err, hostabi.ReasonNATSUnavailable)
			}
			if err := n.Close(); err != nil {
				t.Error(err)
			}
			if said := fmt.Sprint(err, log.String(), n.warnings()); strings.Contains(said, "canary") {
				t.Errorf("a secret was told: %s", said)
			}
		})
	}
}

// TestLeastPrivilege: a user that may do only what docs/nats.md lists can do everything.
func TestLeastPrivilege(t *testing.T) {
	allow := []string{
		"ds.events.>", "$KV.ds-state.>", "_INBOX.>", "$JS.API.STREAM.INFO.ds-events", "$JS.API.STREAM.CREATE.ds-events", "$JS.API.STREAM.INFO.KV_ds-state",
		"$JS.API.STREAM.CREATE.KV_ds-state", "$JS.API.DIRECT.GET.KV_ds-state.>", "$JS.API.CONSUMER.CREATE.KV_ds-state.>", "$JS.API.CONSUMER.DELETE.KV_ds-state.>",
		"$JS.API.INFO",
	}
	srv := startServer(t, natstest.Options{User: "team", Password: "p", Allow: allow})
	o := options(srv)
	o.User, o.Password = "team", "p"
	a, b := start(t, o), start(t, o)
	s := b.subscribe(t, "a.*")
	a.publish(t, "a.x")
	_ = read(t, s, 1)
	if err := bustest.Increment(t.Context(), a.state, 3); err != nil {
		t.Error(err)
	}
	bustest.WantCount(t, b.state, 3)
	for e, err := range b.state.List(t.Context(), "s3", "") {
		if err != nil || e.Key != "n" {
			t.Errorf("listed %+v, %v", e, err)
		}
	}
	if err := b.state.Remove(t.Context(), "s3"); err != nil {
		t.Error(err)
	}
	// Another prefix is another team.
	o.Prefix = "other"
	stranger := start(t, o)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second) // the server does not answer what is not allowed
	defer cancel()
	err := stranger.Connect(ctx)
	wantReason(t, err, hostabi.ReasonNATSUnavailable)
	if err == nil || !strings.Contains(err.Error(), "stream other-events") {
		t.Errorf("the error does not name the stream: %v", err)
	}
}

func TestNoJetStream(t *testing.T) {
	srv := startServer(t, natstest.Options{NoJetStream: true})
	n := start(t, options(srv))
	wantReason(t, n.Connect(t.Context()), hostabi.ReasonNATSUnavailable)
	_, err := n.state.Get(t.Context(), "s3", "k")
	wantReason(t, err, hostabi.ReasonNATSUnavailable)
}

// TestFailureIsRemembered: a stream that cannot be had is looked up again only after a while.
func TestFailureIsRemembered(t *testing.T) {
	o := options(startServer(t, natstest.Options{NoJetStream: true}))
	now := time.Now()
	o.Clock = func() time.Time { return now }
	n := start(t, o)
	first := n.Connect(t.Context())
	wantReason(t, first, hostabi.ReasonNATSUnavailable)
	if again := n.Connect(t.Context()); hostabi.AsError(again) != hostabi.AsError(first) {
		t.Errorf("it was tried again at once: %v", again)
	}
	now = now.Add(time.Minute)
	if later := n.Connect(t.Context()); hostabi.AsError(later) == hostabi.AsError(first) {
		t.Error("it was not tried again after a minute")
	}
}

// TestQuotaOfManyWriters: writes of one owner at the same time do not add up to more than it may have.
func TestQuotaOfManyWriters(t *testing.T) {
	const writers, size, quota = 32, 200 << 10, 1 << 20
	n := start(t, options(startServer(t, natstest.Options{})))
	var wrote atomic.Int64
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			_, err := n.state.Put(t.Context(), "s3", hostabi.StateEntry{Key: fmt.Sprint(i), Value: make([]byte, size)}, nil, quota)
			if err == nil {
				wrote.Add(1)
				return
			}
			wantReason(t, err, hostabi.ReasonQuota)
		})
	}
	wg.Wait()
	if got := wrote.Load(); got != quota/size {
		t.Errorf("%d writes succeeded, want %d", got, quota/size)
	}
}

func TestTLS(t *testing.T) {
	cert, ca := certificate(t)
	srv := startServer(t, natstest.Options{TLS: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}})
	o := options(srv)
	o.Servers = []string{"tls://" + srv.Addr()}
	wantReason(t, start(t, o).Connect(t.Context()), hostabi.ReasonNATSUnavailable) // signed by nobody that we know
	o.CAFile = ca
	n := start(t, o)
	s := start(t, o).subscribe(t, "a")
	n.publish(t, "a")
	_ = read(t, s, 1)
}

// certificate is one of 127.0.0.1 and the file of who signed it.
func certificate(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

// stream lists the subjects of the events in the stream, in order, once the last one is there: the server tells
// subscribers of an event before it has stored it.
func stream(t *testing.T, srv *natstest.Server, last string) (subjects []string) {
	t.Helper()
	nc, err := nats.Connect(srv.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(t.Context(), "ds-events")
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.OrderedConsumer(t.Context(), jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	all, err := c.Messages()
	if err != nil {
		t.Fatal(err)
	}
	defer all.Stop()
	for {
		m, err := all.Next(jetstream.NextMaxWait(20 * time.Second))
		if err != nil {
			t.Fatalf("%s is not in the stream: %v", last, err)
		}
		subjects = append(subjects, strings.TrimPrefix(m.Subject(), "ds.events."))
		if subjects[len(subjects)-1] == last {
			return subjects
		}
	}
}

// TestServerComesBack: while it is away the local bus goes on and state says so at once; what was published
// meanwhile arrives, in order and once.
func TestServerComesBack(t *testing.T) {
	srv := startServer(t, natstest.Options{})
	a, b := start(t, options(srv)), start(t, options(srv))
	here, there := a.subscribe(t, "a.*"), b.subscribe(t, "a.*")
	a.publish(t, "a.0")
	_ = read(t, here, 1)
	_ = read(t, there, 1)
	if _, err := a.state.Put(t.Context(), "s3", hostabi.StateEntry{Key: "k", Value: []byte("v")}, nil, 0); err != nil {
		t.Fatal(err)
	}
	srv.Stop()
	for i := range 20 {
		a.publish(t, fmt.Sprintf("a.%d", i+1))
		if got := read(t, here, 1)[0]; got.Topic != fmt.Sprintf("a.%d", i+1) {
			t.Errorf("locally %s came", got.Topic)
		}
	}
	away, cancel := context.WithTimeout(t.Context(), time.Second) // no reply comes to what was sent before the client knows
	defer cancel()
	_, err := a.state.Get(away, "s3", "k")
	wantReason(t, err, hostabi.ReasonNATSUnavailable)
	_, err = a.state.Put(away, "s3", hostabi.StateEntry{Key: "k"}, nil, 0)
	wantReason(t, err, hostabi.ReasonNATSUnavailable)
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	// b may come back after a has sent: then only the stream has the events. Both halves are promises.
	want := start(t, options(srv)).subscribe(t, "a.last")
	a.publish(t, "a.last")
	if got := read(t, want, 1)[0]; got.Topic != "a.last" {
		t.Errorf("got %+v", got)
	}
	topics := stream(t, srv, "a.last")
	if len(topics) != 22 {
		t.Fatalf("the stream has %d events: %v", len(topics), topics)
	}
	for i := range 21 {
		if topics[i] != fmt.Sprintf("a.%d", i) {
			t.Errorf("event %d of the stream is %s", i, topics[i])
		}
	}
	if e, err := a.state.Get(t.Context(), "s3", "k"); err != nil || string(e.Value) != "v" {
		t.Errorf("Get = %+v, %v", e, err)
	}
	if len(a.warnings()) != 0 {
		t.Errorf("warned: %q", a.warnings())
	}
}

// TestServerStaysAway: the end of the command tells once how much was not sent.
func TestServerStaysAway(t *testing.T) {
	srv := startServer(t, natstest.Options{})
	o := options(srv)
	o.FlushTime = 0 // the default
	n := start(t, o)
	if err := n.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	srv.Stop()
	const published = 1500 // more than the ring holds
	for range published {
		n.publish(t, "a")
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if got := n.warnings(); len(got) != 1 || got[0] != fmt.Sprintf("%d events were not sent to the NATS server", published) {
		t.Errorf("warned: %q", got)
	}
	if err := n.Close(); err != nil || len(n.warnings()) != 1 {
		t.Errorf("closing twice: %v, warned %q", err, n.warnings())
	}
	_, err := n.state.Get(t.Context(), "s3", "k")
	wantReason(t, err, hostabi.ReasonNATSUnavailable)
}

// TestGap: events that the ring lost are told in their place.
func TestGap(t *testing.T) {
	srv := startServer(t, natstest.Options{})
	n := start(t, options(srv))
	if err := n.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	srv.Stop()
	for range 1500 {
		n.publish(t, "a")
	}
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	s := start(t, options(srv)).subscribe(t, "a.last")
	n.publish(t, "a.last")
	_ = read(t, s, 1)
	count := make(map[string]int)
	for _, topic := range stream(t, srv, "a.last") {
		count[topic]++
	}
	if count["ds.gap"] == 0 || count["a"] < 1000 || count["a"] >= 1500 {
		t.Errorf("the stream has %v", count)
	}
}

// TestOneStream: processes that start at once make one stream and one bucket.
func TestOneStream(t *testing.T) {
	srv := startServer(t, natstest.Options{})
	var wg sync.WaitGroup
	for range 8 {
		n := start(t, options(srv))
		wg.Go(func() {
			if _, _, err := n.Publish(t.Context(), bustest.Event("a")); err != nil {
				t.Error(err)
			}
			if err := bustest.Increment(t.Context(), n.state, 5); err != nil {
				t.Error(err)
			}
			if err := n.Close(); err != nil {
				t.Error(err)
			}
			if len(n.warnings()) != 0 {
				t.Errorf("warned: %q", n.warnings())
			}
		})
	}
	wg.Wait()
	bustest.WantCount(t, start(t, options(srv)).state, 40)
	start(t, options(srv)).publish(t, "a.last")
	if got := stream(t, srv, "a.last"); len(got) != 9 {
		t.Errorf("the stream has %v", got)
	}
}

// TestOlderStreamStays: ds never changes a stream that is there.
func TestOlderStreamStays(t *testing.T) {
	srv := startServer(t, natstest.Options{})
	o := options(srv)
	if err := start(t, o).Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	o.EventRetention, o.Log = 7*time.Hour, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	n := start(t, o)
	n.publish(t, "a")
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "the stream is not what ds would make") {
		t.Errorf("logged %s", log.String())
	}
}

func TestScrub(t *testing.T) {
	srv := startServer(t, natstest.Options{})
	o := options(srv)
	o.Scrub = func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("canary"), []byte("***")) }
	a, b := start(t, o), start(t, options(srv))
	s := b.subscribe(t, "a")
	e := bustest.Event("a")
	e.Data = []byte(`"my canary"`)
	if _, _, err := a.Publish(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if got := read(t, s, 1)[0]; string(got.Data) != `"my ***"` {
		t.Errorf("got %s", got.Data)
	}
}

// TestStrangers: what is published there by others than ds starts nothing and is delivered only if it could be of a
// plugin.
func TestStrangers(t *testing.T) {
	srv := startServer(t, natstest.Options{})
	n := start(t, options(srv))
	s := n.subscribe(t, "**")
	good := `{"specversion":"1.0","id":"0123456789abcdef-%d","type":"%s","source":"%s"%s}`
	for i, m := range []string{
		"", "{", `{"specversion":"1.0"}`,
		fmt.Sprintf(good, 1, "a.b", "/ds", ""),                                            // a plugin's topic from the host
		fmt.Sprintf(good, 2, "state.changed", "/plugins/state", ""),                       // the host's topic from a plugin
		fmt.Sprintf(good, 3, "a.b", "/plugins/other", ""),                                 // another plugin's topic
		fmt.Sprintf(good, 4, "a.b", "/nodes/0123456789abcdef/plugins/a", ""),              // says itself whose it is
		fmt.Sprintf(good, 5, "a.b", "/plugins/a", `,"dshops":8`),                          // from a loop
		fmt.Sprintf(good, 6, "a.c", "/plugins/a", ""),                                     // on another subject
		strings.Replace(fmt.Sprintf(good, 7, "a.b", "/plugins/a", ""), "0123", "../x", 1), // no bus
		fmt.Sprintf(good, 8, "a.b", "/plugins/a", `,"data_base64":"`+strings.Repeat("AAAA", 30_000)+`"`),
	} {
		if err := srv.Publish("ds.events.a.b", []byte(m)); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	last := fmt.Sprintf(good, 9, "a.b", "/plugins/a", `,"dsdropped":"7","traceparent":"../../x"`)
	for range 2 { // the same event twice
		if err := srv.Publish("ds.events.a.b", []byte(last)); err != nil {
			t.Fatal(err)
		}
	}
	got := read(t, s, 1)[0]
	if got.Source != "/nodes/0123456789abcdef/plugins/a" || got.Dropped != 0 || got.TraceID != "" || got.Hops != 1 {
		t.Errorf("got %+v", got)
	}
	wantNone(t, s)
	// A damaged entry of the bucket is an error, not a value.
	if _, err := n.state.Put(t.Context(), "s3", hostabi.StateEntry{Key: "k"}, nil, 0); err != nil {
		t.Fatal(err)
	}
	if err := srv.Publish("$KV.ds-state.s3.aw", []byte("\x02junk")); err != nil {
		t.Fatal(err)
	}
	wantStateCorrupt(t, n)
}

func wantStateCorrupt(t *testing.T, n *node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for ctx.Err() == nil { // the message is on its way
		if _, err := n.state.Get(ctx, "s3", "k"); hostabi.ReasonOf(err) == hostabi.ReasonStateCorrupt {
			return
		}
	}
	t.Error("a damaged entry was read")
}

// TestNothingStays: no goroutine of the client or of this package outlives Close, whatever was going on.
func TestNothingStays(t *testing.T) {
	srv := startServer(t, natstest.Options{})
	o := options(srv)
	o.FlushTime = 0 // the default
	for i := range 3 {
		n := start(t, o)
		_ = n.subscribe(t, "a.*", "b")
		n.publish(t, "a.x", "b")
		if err := bustest.Increment(t.Context(), n.state, 1); err != nil {
			t.Fatal(err)
		}
		for _, err := range n.state.List(t.Context(), "s3", "") {
			if err != nil {
				t.Fatal(err)
			}
		}
		if i == 2 {
			srv.Stop()
			n.publish(t, "a.y")
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.After(10 * time.Second)
	for {
		left := goroutines("nats-io/nats.go", "internal/natsbus.(")
		if left == "" {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("these are left:\n%s", left)
		default:
			runtime.Gosched()
		}
	}
}

// goroutines are those whose stack names one of the words.
func goroutines(words ...string) (found string) {
	buf := make([]byte, 4<<20)
	for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if slices.ContainsFunc(words, func(w string) bool { return strings.Contains(stack, w) }) {
			found += stack + "\n\n"
		}
	}
	return found
}
