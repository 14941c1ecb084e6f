package egress

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/delivery-station/ds/hostabi"
)

// site is a server whose paths redirect or answer; seen are the requests that reached it.
type site struct {
	*httptest.Server
	seen []*http.Request
}

func newSite(t *testing.T, routes map[string]string) *site {
	t.Helper()
	s := &site{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		s.seen = append(s.seen, q)
		if to, ok := routes[q.URL.Path]; ok {
			w.Header().Set("Location", to)
			w.WriteHeader(http.StatusFound)
			return
		}
		_, _ = io.WriteString(w, q.Method+" "+q.URL.Path)
	}))
	t.Cleanup(s.Close)
	return s
}

func private(*url.URL) (bool, error) { return true, nil }

func do(t *testing.T, method, target string, redirects int, allow func(*url.URL) (bool, error)) (string, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer secret")
	resp, err := NewClient(Options{}).Do(r, redirects, allow)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func TestClientFollowsAllowedRedirects(t *testing.T) {
	s := newSite(t, map[string]string{"/a": "/b", "/b": "c"})
	body, err := do(t, http.MethodPost, s.URL+"/a", 10, private)
	if err != nil || body != "GET /c" {
		t.Errorf("got %q, %v", body, err)
	}
	if s.seen[2].Header.Get("Authorization") == "" {
		t.Error("the same origin loses its header")
	}
}

func TestClientRefusesLoopbackUnlessPrivate(t *testing.T) {
	s := newSite(t, nil)
	_, err := do(t, http.MethodGet, s.URL, 10, func(*url.URL) (bool, error) { return false, nil })
	if hostabi.ReasonOf(err) != hostabi.ReasonAddressDenied || len(s.seen) != 0 {
		t.Errorf("got %v with %d requests", err, len(s.seen))
	}
	name := strings.Replace(s.URL, "127.0.0.1", "localhost", 1)
	if _, err := do(t, http.MethodGet, name, 10, func(*url.URL) (bool, error) { return false, nil }); hostabi.ReasonOf(err) != hostabi.ReasonAddressDenied {
		t.Errorf("by name: %v", err)
	}
}

func TestClientDecidesEveryHop(t *testing.T) {
	other := newSite(t, nil)
	s := newSite(t, map[string]string{"/": other.URL + "/x"})
	denied := hostabi.Errorf(hostabi.ReasonCapabilityDenied, "no")
	_, err := do(t, http.MethodGet, s.URL, 10, func(u *url.URL) (bool, error) {
		if "http://"+u.Host == other.URL {
			return false, denied
		}
		return true, nil
	})
	e, ok := errors.AsType[*hostabi.Error](err)
	if !ok || e.Reason != hostabi.ReasonRedirectDenied || e.Meta["resource"] != other.URL || len(other.seen) != 0 {
		t.Errorf("got %v with %d requests to the other site", err, len(other.seen))
	}
	if body, err := do(t, http.MethodGet, s.URL, 10, private); err != nil || body != "GET /x" {
		t.Errorf("allowed: %q, %v", body, err)
	}
	if other.seen[0].Header.Get("Authorization") != "" {
		t.Error("a credential followed a redirect to another origin")
	}
}

func TestClientUnsafeRedirects(t *testing.T) {
	loop := newSite(t, map[string]string{"/": "/"})
	for name, c := range map[string]struct {
		routes map[string]string
		max    int
		want   hostabi.Reason
	}{
		"other scheme": {map[string]string{"/": "file:///etc/passwd"}, 10, hostabi.ReasonRedirectDenied},
		"user":         {map[string]string{"/": "http://a:b@127.0.0.1/"}, 10, hostabi.ReasonRedirectDenied},
		"garbage":      {map[string]string{"/": "http://[::1"}, 10, hostabi.ReasonRedirectDenied},
		"too many":     {map[string]string{"/": loop.URL}, 3, hostabi.ReasonRedirectDenied},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, c.routes)
			if _, err := do(t, http.MethodGet, s.URL+"/", c.max, private); hostabi.ReasonOf(err) != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
	s := newSite(t, map[string]string{"/": "/elsewhere"})
	if body, err := do(t, http.MethodGet, s.URL+"/", 0, private); err != nil || body != "" || len(s.seen) != 1 {
		t.Errorf("no redirects: %q, %v, %d requests", body, err, len(s.seen))
	}
	https, _ := url.Parse("https://example.com/")
	r := &http.Request{Method: http.MethodGet, URL: https, Header: http.Header{}}
	resp := &http.Response{StatusCode: http.StatusFound, Header: http.Header{"Location": {"http://example.com/"}}}
	if _, err := redirected(r.WithContext(t.Context()), resp); hostabi.ReasonOf(err) != hostabi.ReasonRedirectDenied {
		t.Errorf("https to http: %v", err)
	}
}
