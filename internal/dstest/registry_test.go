package dstest_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/dstest"
)

var (
	content = []byte(strings.Repeat("0123456789", 100))
	digest  = string(hostabi.DigestOf(content))
)

// ask sends a request and returns the answer with its body, which may have been cut.
func ask(t *testing.T, method, url string, body []byte, change func(*http.Request)) (*http.Response, []byte, error) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(q)
	}
	// net/http repeats requests on connections that it used before, which would hide faults.
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(q)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, b, err
}

// upload stores content in a repository in one request.
func upload(t *testing.T, r *dstest.RegistryServer, repo string) {
	t.Helper()
	resp, b, err := ask(t, http.MethodPost, r.URL+"/v2/"+repo+"/blobs/uploads/?digest="+digest, content, nil)
	if err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("upload: %v %s %v", resp, b, err)
	}
}

func blobURL(r *dstest.RegistryServer, repo string) string {
	return r.URL + "/v2/" + repo + "/blobs/" + digest
}

func TestBlobs(t *testing.T) {
	t.Parallel()
	r := dstest.Registry(t, dstest.RegistryOptions{})
	upload(t, r, "a/b")
	resp, b, err := ask(t, http.MethodGet, blobURL(r, "a/b"), nil, func(q *http.Request) { q.Header.Set("Range", "bytes=990-") })
	if err != nil || resp.StatusCode != http.StatusPartialContent || string(b) != "0123456789" || resp.Header.Get("Content-Range") != "bytes 990-999/1000" {
		t.Errorf("range: %v %q %v", resp, b, err)
	}
	if resp, _, _ := ask(t, http.MethodGet, blobURL(r, "other"), nil, nil); resp.StatusCode != http.StatusNotFound {
		t.Errorf("another repository has the blob: %v", resp.Status)
	}
	if resp, _, _ := ask(t, http.MethodPost, r.URL+"/v2/other/blobs/uploads/?from=a/b&mount="+digest, nil, nil); resp.StatusCode != http.StatusCreated {
		t.Errorf("mount: %v", resp.Status)
	}
	if resp, _, _ := ask(t, http.MethodPost, r.URL+"/v2/other/blobs/uploads/?from=nowhere&mount="+digest, nil, nil); resp.StatusCode != http.StatusAccepted {
		t.Errorf("mount of nothing: %v", resp.Status)
	}
	if resp, _, _ := ask(t, http.MethodGet, blobURL(r, "other"), nil, nil); resp.StatusCode != http.StatusOK {
		t.Errorf("mounted blob: %v", resp.Status)
	}
	whole := dstest.Registry(t, dstest.RegistryOptions{NoRanges: true})
	upload(t, whole, "a/b")
	if resp, b, _ := ask(t, http.MethodGet, blobURL(whole, "a/b"), nil, func(q *http.Request) { q.Header.Set("Range", "bytes=990-") }); resp.StatusCode != http.StatusOK || len(b) != 1000 {
		t.Errorf("without ranges: %v, %d bytes", resp.Status, len(b))
	}
}

// TestFaults shows that each fault really happens, as often as it should, and is logged.
func TestFaults(t *testing.T) {
	t.Parallel()
	r := dstest.Registry(t, dstest.RegistryOptions{})
	upload(t, r, "a/b")
	upload(t, r, "c/d")
	get := func(repo string) (int, []byte, error) {
		resp, b, err := ask(t, http.MethodGet, blobURL(r, repo), nil, nil)
		if resp == nil {
			return 0, nil, err
		}
		return resp.StatusCode, b, err
	}
	for name, k := range map[string]struct {
		fault dstest.Fault
		bad   func(status int, b []byte, err error) bool
	}{
		"status": {dstest.Fault{Status: 503}, func(s int, _ []byte, _ error) bool { return s == 503 }},
		"cut":    {dstest.Fault{CutAt: 500}, func(_ int, b []byte, err error) bool { return len(b) == 500 && errors.Is(err, io.ErrUnexpectedEOF) }},
		"reset":  {dstest.Fault{CutAt: -1}, func(s int, _ []byte, err error) bool { return s == 0 && err != nil }},
		"flip": {dstest.Fault{Flip: true}, func(_ int, b []byte, _ error) bool {
			return len(b) == 1000 && b[0] != content[0] && bytes.Equal(b[1:], content[1:])
		}},
		"delay": {dstest.Fault{Delay: time.Millisecond, Status: 418}, func(s int, _ []byte, _ error) bool { return s == 418 }},
	} {
		k.fault.Method, k.fault.Path, k.fault.Times, k.fault.EachPath, k.fault.Skip = http.MethodGet, "/blobs/", 1, true, 1
		r.Heal()
		r.Inject(k.fault)
		r.Forget()
		for _, repo := range []string{"a/b", "c/d"} {
			for n, want := range []bool{false, true, false} {
				s, b, err := get(repo)
				if got := k.bad(s, b, err); got != want || (!got && !bytes.Equal(b, content)) {
					t.Errorf("%s: request %d of %s: %d, %d bytes, %v", name, n, repo, s, len(b), err)
				}
			}
		}
		if n := r.Count("GET", "/blobs/"); n != 6 {
			t.Errorf("%s: %d requests logged: %v", name, n, r.Requests())
		}
	}
	r.Forget()
	r.Heal()
	if _, _, err := get("a/b"); err != nil || r.Sent("/blobs/") != 1000 {
		t.Errorf("sent %d bytes, %v", r.Sent("/blobs/"), err)
	}
}

func TestAuthentication(t *testing.T) {
	t.Parallel()
	login := func(user, password string) func(*http.Request) {
		return func(q *http.Request) { q.SetBasicAuth(user, password) }
	}
	basic := dstest.Registry(t, dstest.RegistryOptions{Username: "u", Password: "p"})
	for name, k := range map[string]struct {
		change func(*http.Request)
		want   int
	}{"nobody": {nil, 401}, "wrong": {login("u", "x"), 401}, "right": {login("u", "p"), 200}} {
		if resp, _, _ := ask(t, http.MethodGet, basic.URL+"/v2/", nil, k.change); resp.StatusCode != k.want {
			t.Errorf("basic, %s: %s", name, resp.Status)
		}
	}
	r := dstest.Registry(t, dstest.RegistryOptions{Username: "u", Password: "p", Token: true, AnonymousPull: true})
	token := func(scope string, change func(*http.Request)) func(*http.Request) {
		t.Helper()
		_, b, err := ask(t, http.MethodGet, r.URL+"/token?scope="+scope, nil, change)
		if err != nil {
			t.Fatal(err)
		}
		s := strings.Split(string(b), `"`)
		return func(q *http.Request) { q.Header.Set("Authorization", "Bearer "+s[len(s)-2]) }
	}
	const push = "repository:a/b:pull,push"
	for name, k := range map[string]struct {
		method, repo string
		change       func(*http.Request)
		want         int
	}{
		"no token":           {"POST", "a/b", nil, 401},
		"right":              {"POST", "a/b", token(push, login("u", "p")), 202},
		"anonymous push":     {"POST", "a/b", token(push, nil), 401},
		"anonymous pull":     {"GET", "a/b", token(push, nil), 404},
		"another repository": {"GET", "a/c", token(push, login("u", "p")), 401},
		"pull only":          {"POST", "a/b", token("repository:a/b:pull", login("u", "p")), 401},
	} {
		url := r.URL + "/v2/" + k.repo + "/blobs/uploads/"
		if k.method == "GET" {
			url = blobURL(r, k.repo)
		}
		if resp, _, _ := ask(t, k.method, url, nil, k.change); resp.StatusCode != k.want {
			t.Errorf("token, %s: %s, want %d", name, resp.Status, k.want)
		}
	}
	old := token(push, login("u", "p"))
	r.ExpireTokens()
	if resp, _, _ := ask(t, http.MethodGet, blobURL(r, "a/b"), nil, old); resp.StatusCode != http.StatusUnauthorized || !strings.HasPrefix(resp.Header.Get("Www-Authenticate"), "Bearer ") {
		t.Errorf("an expired token: %v", resp)
	}
}
