package client

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1lite"
)

// HTTPRequest is one HTTP request that the host makes: every hop is checked against net.http. The body is
// Body, a cached blob or none.
type HTTPRequest struct {
	Method, URL string // Method: default GET
	Header      map[string][]string
	Body        io.Reader
	BodyBlob    Digest
	Sink        *BlobWriter // the host writes the response's body there; HTTPResponse.Body is then empty
}

// HTTPResponse is the answer. Body must be closed; header names are in canonical form.
type HTTPResponse struct {
	Status int
	Header map[string][]string
	URL    string // of the last hop
	Body   io.ReadCloser
}

// Do makes a request. An answer of any status is no error.
func (c *Client) Do(ctx context.Context, req *HTTPRequest) (*HTTPResponse, error) {
	head := &hostv1lite.HttpHead{Method: req.Method, Url: req.URL, BodyBlob: string(req.BodyBlob)}
	if head.Method == "" {
		head.Method = "GET"
	}
	for name, values := range req.Header {
		for _, v := range values {
			head.Headers = append(head.Headers, hostv1lite.Header{Name: name, Value: v})
		}
	}
	if d, ok := ctx.Deadline(); ok {
		head.Timeout = max(1, time.Until(d).Milliseconds())
	}
	if req.Sink != nil {
		head.Sink = req.Sink.handle
	}
	if l, ok := req.Body.(interface{ Len() int }); ok {
		head.ContentLength = int64(l.Len())
	}
	ctx, cancel := context.WithCancel(ctx)
	st, err := c.open(ctx, hostv1lite.HttpDo, &hostv1lite.HttpRequest{Head: head})
	if err != nil {
		cancel()
		return nil, err
	}
	body := &httpBody{st: st, cancel: cancel, broken: make(chan error, 1)}
	body.send(req.Body)
	var first hostv1lite.HttpResponse
	err = st.recv(&first)
	if err == nil && first.Status == nil || err == io.EOF {
		err = classify(hostabi.Errorf(hostabi.ReasonProtocol, "http: the answer has no status"))
	}
	if err != nil {
		_ = body.Close()
		select {
		case cause := <-body.broken:
			return nil, cause
		default:
			return nil, err
		}
	}
	out := &HTTPResponse{Status: int(first.Status.Code), URL: first.Status.Url, Header: make(map[string][]string), Body: body}
	for _, h := range first.Status.Headers {
		name := canonical(h.Name)
		out.Header[name] = append(out.Header[name], h.Value)
	}
	return out, nil
}

// canonical is Content-Type for content-type.
func canonical(name string) string {
	parts := strings.Split(name, "-")
	for i, p := range parts {
		if p != "" {
			parts[i] = strings.ToUpper(p[:1]) + strings.ToLower(p[1:])
		}
	}
	return strings.Join(parts, "-")
}

// httpBody is the body of a response.
type httpBody struct {
	st     *stream
	cancel context.CancelFunc
	left   []byte
	err    error
	broken chan error // why the request's body could not be read
}

// send has the request's body, which may be nil, sent. A body that fails cancels the request.
func (b *httpBody) send(r io.Reader) {
	if r == nil {
		_ = b.st.closeSend()
		return
	}
	buf := make([]byte, hostabi.MaxHTTPBody)
	b.st.feed(func() bool {
		n, err := r.Read(buf)
		if n > 0 && b.st.send(&hostv1lite.HttpRequest{Body: buf[:n]}) != nil {
			return false
		}
		switch err {
		case nil:
			return true
		case io.EOF:
			_ = b.st.closeSend()
		default:
			b.broken <- err
			b.st.close()
		}
		return false
	})
}

// Read implements io.Reader.
func (b *httpBody) Read(p []byte) (int, error) {
	for len(b.left) == 0 {
		if b.err != nil {
			return 0, b.err
		}
		var m hostv1lite.HttpResponse
		switch err := b.st.recv(&m); {
		case err == io.EOF:
			b.err = io.ErrUnexpectedEOF
		case err != nil:
			b.err = err
		case m.End != nil:
			b.err = io.EOF
		default:
			b.left = m.Body
		}
	}
	n := copy(p, b.left)
	b.left = b.left[n:]
	return n, nil
}

// Close ends the request.
func (b *httpBody) Close() error {
	b.st.close()
	b.cancel()
	if b.err == nil {
		b.err = errors.New("http: read of a closed body")
	}
	return nil
}
