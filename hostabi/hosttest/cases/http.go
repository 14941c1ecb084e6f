package cases

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1lite"
)

// web is the URL of a path on the world's web server.
func (g *guest) web(path string) string { return g.setting("settings.kit.url") + path }

// response is an answer of Http.Do.
type response struct {
	status *hostv1lite.HttpStatus
	body   []byte
	end    *hostv1lite.HttpEnd
}

func (r *response) header(name string) string {
	for _, h := range r.status.Headers {
		if h.Name == name {
			return h.Value
		}
	}
	return ""
}

// http makes one request.
func (g *guest) http(head *hostv1lite.HttpHead, body ...string) (*response, error) {
	st, err := g.open(hostv1lite.HttpDo, &hostv1lite.HttpRequest{Head: head})
	if err != nil {
		return nil, err
	}
	defer st.Close() //nolint:errcheck // ended
	for _, piece := range body {
		if err := st.send(&hostv1lite.HttpRequest{Body: []byte(piece)}); err != nil {
			return nil, err
		}
	}
	if err := st.CloseSend(); err != nil {
		return nil, err
	}
	r := &response{}
	for {
		var m hostv1lite.HttpResponse
		if err := st.recv(&m); errors.Is(err, io.EOF) {
			return r, nil
		} else if err != nil {
			return r, err
		}
		if m.Status != nil {
			r.status = m.Status
		}
		if m.End != nil {
			r.end = m.End
		}
		if len(m.Body) > hostabi.MaxHTTPBody {
			return r, fmt.Errorf("body message of %d bytes", len(m.Body))
		}
		r.body = append(r.body, m.Body...)
	}
}

// show prints one request's answer.
func (g *guest) show(head *hostv1lite.HttpHead, body ...string) *response {
	r, err := g.http(head, body...)
	if err == nil && (r.status == nil || r.end == nil) {
		err = fmt.Errorf("no status or end")
	}
	if err == nil {
		g.print("%d %s %d bytes: %s", r.status.Code, r.header("X-Kit"), r.end.Bytes, r.body)
	}
	g.outcome("do", err)
	if err != nil {
		return &response{end: &hostv1lite.HttpEnd{}}
	}
	return r
}

func httpPath(path string) func(*guest) {
	return func(g *guest) { g.show(&hostv1lite.HttpHead{Url: g.web(path)}) }
}

func httpURL(url string) func(*guest) {
	return func(g *guest) { g.show(&hostv1lite.HttpHead{Url: url}) }
}

func httpGet(g *guest) {
	g.show(&hostv1lite.HttpHead{Method: "GET", Url: g.web("/hello"), Headers: []hostv1lite.Header{{Name: "x-kit", Value: "v"}}})
}

func httpPost(g *guest) {
	g.show(&hostv1lite.HttpHead{Method: "POST", Url: g.web("/echo")}, "abc", "def")
}

func httpBodyBlob(g *guest) {
	info, err := g.put([]byte("from the cache"), "")
	g.outcome("put", err)
	g.show(&hostv1lite.HttpHead{Method: "PUT", Url: g.web("/echo"), BodyBlob: info.Digest})
}

func httpSink(g *guest) {
	want := digestOf([]byte(strings.Repeat("big ", 1<<18)))
	var o hostv1lite.OpenedBlob
	g.outcome("create", g.call(hostv1lite.CacheCreate, &hostv1lite.CreateBlobRequest{}, &o))
	r := g.show(&hostv1lite.HttpHead{Url: g.web("/big"), Sink: o.Handle})
	g.print("same %t", r.end.Digest == want)
	var info hostv1lite.BlobInfo
	g.outcome("commit", g.call(hostv1lite.CacheCommit, &hostv1lite.CommitRequest{Handle: o.Handle}, &info))
	g.print("same %t size %d", info.Digest == want, info.Size)
}

// httpBig gets a body that is longer than one message.
func httpBig(path string) func(*guest) {
	return func(g *guest) {
		r, err := g.http(&hostv1lite.HttpHead{Url: g.web(path)})
		g.outcome("do", err)
		if err == nil {
			g.print("%d bytes", len(r.body))
		}
	}
}

// httpNoRedirects gets the redirect itself.
func httpNoRedirects(g *guest) {
	none := uint32(0)
	r, err := g.http(&hostv1lite.HttpHead{Url: g.web("/here"), MaxRedirects: &none})
	g.outcome("do", err)
	if err == nil {
		g.print("%d %s", r.status.Code, r.header("Location"))
	}
}

// httpPrivate names a host that is granted, and resolves to a private address, which is not.
func httpPrivate(g *guest) {
	g.show(&hostv1lite.HttpHead{Url: strings.Replace(g.web("/hello"), "127.0.0.1", "localhost", 1)})
}

func httpBadURL(g *guest) {
	for _, u := range []string{"", "ftp://example.com/", "http://user:pw@127.0.0.1/", "http://0x7f%2e1/"} {
		g.show(&hostv1lite.HttpHead{Url: u})
	}
}

func httpTimeout(g *guest) {
	g.show(&hostv1lite.HttpHead{Url: g.web("/slow"), Timeout: 50})
}
