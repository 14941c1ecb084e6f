package dstest

import (
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"strings"
	"sync"
)

// tokens are the bearer tokens in use and what each allows.
type tokens struct {
	mu sync.Mutex
	m  map[string][]string // token -> scopes "repository:NAME:pull,push"
}

// ExpireTokens makes every bearer token invalid.
func (r *RegistryServer) ExpireTokens() {
	r.tokens.mu.Lock()
	defer r.tokens.mu.Unlock()
	r.tokens.m = nil
}

// CertPEM is the certificate of a TLS registry.
func (r *RegistryServer) CertPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.server.Certificate().Raw})
}

func (r *RegistryServer) allowed(w http.ResponseWriter, q *http.Request) bool {
	if r.opt.Username == "" {
		return true
	}
	if !r.opt.Token {
		if r.login(q) {
			return true
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		deny(w, http.StatusUnauthorized)
		return false
	}
	scope := neededScope(q)
	if token, ok := strings.CutPrefix(q.Header.Get("Authorization"), "Bearer "); ok && r.tokens.allow(token, scope) {
		return true
	}
	challenge := `Bearer realm="` + r.URL + `/token",service="test"`
	if scope != "" {
		challenge += `,scope="` + scope + `"`
	}
	w.Header().Set("WWW-Authenticate", challenge)
	deny(w, http.StatusUnauthorized)
	return false
}

func (r *RegistryServer) login(q *http.Request) bool {
	user, password, ok := q.BasicAuth()
	return ok && user == r.opt.Username && password == r.opt.Password
}

func (r *RegistryServer) serveToken(w http.ResponseWriter, q *http.Request) {
	scopes := q.URL.Query()["scope"]
	if !r.login(q) {
		_, _, given := q.BasicAuth()
		if given || !r.opt.AnonymousPull {
			deny(w, http.StatusUnauthorized)
			return
		}
		for i, s := range scopes {
			scopes[i] = strings.ReplaceAll(s, ",push", "")
		}
	}
	token := rand.Text()
	r.tokens.mu.Lock()
	if r.tokens.m == nil {
		r.tokens.m = make(map[string][]string)
	}
	r.tokens.m[token] = scopes
	r.tokens.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "expires_in": 300}) // the client may be gone
}

func (t *tokens) allow(token, need string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	scopes, ok := t.m[token]
	if !ok || need == "" {
		return ok
	}
	i := strings.LastIndexByte(need, ':')
	repository, actions := need[:i+1], need[i+1:]
	for _, s := range scopes {
		if has, ok := strings.CutPrefix(s, repository); ok && containsAll(has, actions) {
			return true
		}
	}
	return false
}

func containsAll(have, want string) bool {
	for w := range strings.SplitSeq(want, ",") {
		if !strings.Contains(","+have+",", ","+w+",") {
			return false
		}
	}
	return true
}

// neededScope is what the request needs; "" for /v2/ itself.
func neededScope(q *http.Request) string {
	path := strings.TrimPrefix(q.URL.Path, "/v2/")
	for _, mark := range []string{"/manifests/", "/blobs/", "/tags/", "/referrers/"} {
		if i := strings.LastIndex(path, mark); i >= 0 {
			actions := "pull"
			if q.Method != http.MethodGet && q.Method != http.MethodHead {
				actions = "pull,push"
			}
			return "repository:" + path[:i] + ":" + actions
		}
	}
	return ""
}

func deny(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(`{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`))
}
