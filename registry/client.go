// Package registry is the only package that speaks the OCI distribution protocol or reads an OCI layout
// directory. It moves graphs of manifests and blobs between remote repositories, layouts and a
// hostabi.Sink that the caller gives. It knows neither the cache nor plugins and decides no policy. Start
// with New and Client.Pull.
package registry

import (
	"net/http"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

// Options are resolved values; New reads no file and no environment. The zero value works for public
// registries without credentials.
type Options struct {
	// DefaultRegistry is what short names are joined to: "ghcr.io/delivery-station" or "oci-layout:DIR".
	DefaultRegistry string
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
	Proxy           Proxy
	// Offline forbids every request and every name lookup.
	Offline bool
	// Refs remembers what tags pointed to, for offline use; nil remembers nothing.
	Refs Refs
	// Home replaces ~ in layout paths, Dir is where relative ones begin; empty = the working directory.
	Home, Dir string
	UserAgent string
	// Transport replaces the network, in tests.
	Transport http.RoundTripper
}

// Host is the settings of one registry host.
type Host struct {
	Host                      string // name[:port] or *.suffix
	PlainHTTP                 bool   // plain HTTP
	InsecureTLS               bool   // no certificate check
	CAFile, CertFile, KeyFile string // CA added to the system's, client certificate
	Concurrency               int
	Referrers                 string   // auto (default), api or tag
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

// Transfer words, see hostabi.Transfer.
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
