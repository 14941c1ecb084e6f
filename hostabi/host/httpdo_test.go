package host_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/host"
	"github.com/delivery-station/ds/hostabi/hostv1"
)

// client is an HTTP owner on the standard client; every hop is asked for.
type client struct{}

func (client) Do(r *http.Request, maxRedirects int, allow func(*url.URL) (bool, error)) (*http.Response, error) {
	c := http.Client{CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return hostabi.Errorf(hostabi.ReasonRedirectDenied, "too many redirects")
		}
		_, err := allow(req.URL)
		return err
	}}
	if private, err := allow(r.URL); err != nil || !private {
		return nil, errors.Join(err, hostabi.Errorf(hostabi.ReasonAddressDenied, "loopback"))
	}
	resp, err := c.Do(r)
	if err != nil && hostabi.ReasonOf(err) == "" {
		err = hostabi.Errorf(hostabi.ReasonRegistryUnavailable, "%s: %w", r.URL.Host, err)
	}
	return resp, err
}

func TestHTTP(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/echo":
			w.Header().Set("X-Got", r.Header.Get("X-Sent"))
			_, _ = io.Copy(w, r.Body)
		case "/big":
			_, _ = io.WriteString(w, strings.Repeat("b", 600<<10))
		case "/cut":
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, "x")
		case "/hangup":
			panic(http.ErrAbortHandler)
		case "/away":
			http.Redirect(w, r, "http://away.example/", http.StatusFound)
		}
	}))
	defer server.Close()
	f := newFixture(t)
	r := host.New(host.Options{Cache: func(o hostabi.PluginName, source string) (host.Cache, error) { return f.blobs.View(o, source), nil }})
	hostv1.RegisterHttpServer(r, host.NewHTTP(client{}))
	hostv1.RegisterCacheServer(r, host.NewCache())
	f.Registrar = r
	s := f.open(scopes{hostabi.NetHTTP: only("private:" + server.URL), hostabi.CacheWrite: only("own"), hostabi.CacheRead: only("own")}, nil)
	do := func(head *hostv1.HttpHead, body ...string) (status *hostv1.HttpStatus, text string, end *hostv1.HttpEnd, err error) {
		t.Helper()
		st := openStream(t, t.Context(), s, hostv1.Http_Do_FullMethodName, &hostv1.HttpRequest{Msg: &hostv1.HttpRequest_Head{Head: head}})
		for _, piece := range body {
			b, merr := proto.Marshal(&hostv1.HttpRequest{Msg: &hostv1.HttpRequest_Body{Body: []byte(piece)}})
			if merr == nil {
				merr = st.Send(b)
			}
			if merr != nil {
				t.Fatal(merr)
			}
		}
		_ = st.CloseSend()
		for {
			b, err := st.Recv()
			if err == io.EOF {
				return status, text, end, nil
			}
			if err != nil {
				return status, text, end, err
			}
			var m hostv1.HttpResponse
			if err := proto.Unmarshal(b, &m); err != nil {
				t.Fatal(err)
			}
			if m.GetStatus() != nil {
				status = m.GetStatus()
			}
			if m.GetEnd() != nil {
				end = m.GetEnd()
			}
			if len(m.GetBody()) > hostabi.MaxHTTPBody {
				t.Errorf("body message of %d bytes", len(m.GetBody()))
			}
			text += string(m.GetBody())
		}
	}
	status, text, end, err := do(&hostv1.HttpHead{Method: "POST", Url: server.URL + "/echo", Headers: []*hostv1.Header{{Name: "x-sent", Value: "yes"}}, Timeout: 10_000}, "hel", "lo")
	if err != nil || status.GetCode() != 200 || text != "hello" || end.GetBytes() != 5 {
		t.Errorf("echo: %v %q %v %v", status, text, end, err)
	}
	got := ""
	for _, h := range status.GetHeaders() {
		if h.GetName() == "X-Got" {
			got = h.GetValue()
		}
	}
	if got != "yes" {
		t.Errorf("headers %v", status.GetHeaders())
	}
	if _, text, end, err := do(&hostv1.HttpHead{Url: server.URL + "/big"}); err != nil || len(text) != 600<<10 || end.GetBytes() != 600<<10 {
		t.Errorf("big: %d bytes, %v %v", len(text), end, err)
	}
	d := put(t, s, "from the cache")
	if _, text, _, err := do(&hostv1.HttpHead{Method: "PUT", Url: server.URL + "/echo", BodyBlob: d}); err != nil || text != "from the cache" {
		t.Errorf("blob as body: %q %v", text, err)
	}
	runDir := t.TempDir()
	if err := os.WriteFile(filepath.Join(runDir, "body"), []byte("from a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(runDir, "link")); err != nil {
		t.Log(err)
	}
	post := &hostv1.HttpHead{Method: "POST", Url: server.URL + "/echo", BodyPath: filepath.Join(runDir, "body")}
	if _, _, _, err := do(post); hostabi.ReasonOf(err) != hostabi.ReasonBadMessage { // a module has no such directory
		t.Errorf("without DS_RUN_DIR: %v", err)
	}
	s.SetRunDir(runDir, false) // a native plugin's sink has a path; what the host fetches does not go there
	if _, text, _, err := do(post); err != nil || text != "from a file" {
		t.Errorf("file as body: %q %v", text, err)
	}
	var o hostv1.OpenedBlob
	var info hostv1.BlobInfo
	if err := call(t.Context(), s, hostv1.Cache_Create_FullMethodName, &hostv1.CreateBlobRequest{}, &o); err != nil {
		t.Fatal(err)
	}
	want := string(hostabi.DigestOf([]byte(strings.Repeat("b", 600<<10))))
	if _, text, end, err := do(&hostv1.HttpHead{Url: server.URL + "/big", Sink: o.GetHandle()}); err != nil || text != "" || end.GetBytes() != 600<<10 || end.GetDigest() != want {
		t.Errorf("sink: %d bytes, %v %v", len(text), end, err)
	}
	if err := call(t.Context(), s, hostv1.Cache_Commit_FullMethodName, &hostv1.CommitRequest{Handle: o.GetHandle()}, &info); err != nil || info.GetDigest() != want {
		t.Errorf("commit: %v %v", &info, err)
	}
	for _, c := range []struct {
		name string
		head *hostv1.HttpHead
		want hostabi.Reason
	}{
		{"not granted", &hostv1.HttpHead{Url: "https://other.example/"}, hostabi.ReasonCapabilityDenied},
		{"redirect not granted", &hostv1.HttpHead{Url: server.URL + "/away"}, hostabi.ReasonCapabilityDenied},
		{"answer cut", &hostv1.HttpHead{Url: server.URL + "/cut"}, hostabi.ReasonRegistryUnavailable},
		{"no answer", &hostv1.HttpHead{Url: server.URL + "/hangup"}, hostabi.ReasonRegistryUnavailable},
		{"no URL", &hostv1.HttpHead{Url: "x"}, hostabi.ReasonBadURL},
		{"CONNECT", &hostv1.HttpHead{Method: "CONNECT", Url: server.URL}, hostabi.ReasonBadMessage},
		{"host header", &hostv1.HttpHead{Url: server.URL, Headers: []*hostv1.Header{{Name: "host", Value: "x"}}}, hostabi.ReasonBadMessage},
		{"bad method", &hostv1.HttpHead{Method: "A B", Url: server.URL}, hostabi.ReasonBadMessage},
		{"long headers", &hostv1.HttpHead{Url: server.URL, Headers: []*hostv1.Header{{Name: "x", Value: strings.Repeat("v", hostabi.MaxHTTPHeader)}}}, hostabi.ReasonTooLarge},
		{"foreign blob", &hostv1.HttpHead{Url: server.URL, BodyBlob: string(hostabi.DigestOf(nil))}, hostabi.ReasonNotCached},
		{"bad blob", &hostv1.HttpHead{Url: server.URL, BodyBlob: "x"}, hostabi.ReasonBadDigest},
		{"bad sink", &hostv1.HttpHead{Url: server.URL, Sink: 99}, hostabi.ReasonBadHandle},
		{"file elsewhere", &hostv1.HttpHead{Url: server.URL, BodyPath: "/etc/passwd"}, hostabi.ReasonBadMessage},
		{"file above", &hostv1.HttpHead{Url: server.URL, BodyPath: filepath.Join(runDir, "x") + "/../../x"}, hostabi.ReasonBadMessage},
		{"file by relative name", &hostv1.HttpHead{Url: server.URL, BodyPath: "body"}, hostabi.ReasonBadMessage},
		{"no file", &hostv1.HttpHead{Url: server.URL, BodyPath: filepath.Join(runDir, "missing")}, hostabi.ReasonBadMessage},
		{"link", &hostv1.HttpHead{Url: server.URL, BodyPath: filepath.Join(runDir, "link")}, hostabi.ReasonBadMessage},
		{"directory", &hostv1.HttpHead{Url: server.URL, BodyPath: runDir}, hostabi.ReasonBadMessage},
	} {
		_, _, _, err := do(c.head)
		wantReason(t, c.name, err, c.want)
	}
	st := openStream(t, t.Context(), s, hostv1.Http_Do_FullMethodName, &hostv1.HttpRequest{})
	_, err = st.Recv()
	wantReason(t, "no head", err, hostabi.ReasonBadMessage)
}
