package host

import (
	"context"
	"crypto/sha256"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1"
)

// defaultHTTP is how many requests a plugin makes at once if nothing lowers it (security.md section 9).
const defaultHTTP = 8

type httpStream = grpc.BidiStreamingServer[hostv1.HttpRequest, hostv1.HttpResponse]

type httpService struct {
	hostv1.UnimplementedHttpServer
	owner HTTP
}

// NewHTTP serves Http from h; nil answers UNIMPLEMENTED.
func NewHTTP(h HTTP) hostv1.HttpServer { return &httpService{owner: h} }

// gateHTTP decides the first hop; the client asks allowHop again for every further one.
func gateHTTP(c *call, req any) error {
	head := req.(*hostv1.HttpRequest).GetHead()
	if head == nil {
		return hostabi.Errorf(hostabi.ReasonBadMessage, "an HTTP request begins with head")
	}
	if c.m.impl.(*httpService).owner == nil {
		return missing("HTTP client")
	}
	u, err := parseURL(head.GetUrl())
	if err != nil {
		return err
	}
	return c.need(hostabi.NetHTTP, origin(u))
}

// parseURL is the one parse of a plugin's URL: what is decided is what is used.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.Opaque != "" {
		return nil, hostabi.Errorf(hostabi.ReasonBadURL, "URL %q: not http or https without a user", clean(text, 200))
	}
	name := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	if name == "" || strings.IndexFunc(name, func(r rune) bool { return r > '~' || r <= ' ' || r == '%' }) >= 0 {
		return nil, hostabi.Errorf(hostabi.ReasonBadURL, "URL %q: host name is not plain ASCII", clean(text, 200))
	}
	u.Host = hostPort(name, u.Port())
	u.Fragment, u.RawFragment = "", ""
	return u, nil
}

func hostPort(name, port string) string {
	if strings.Contains(name, ":") {
		name = "[" + name + "]"
	}
	if port != "" {
		name += ":" + port
	}
	return name
}

// origin is the resource of net.http.
func origin(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + hostPort(u.Hostname(), port)
}

func (s *Session) httpConcurrency() int {
	if n := s.box.Limits().HTTPConcurrency; n > 0 {
		return n
	}
	return defaultHTTP
}

// enterHTTP waits for a place among the requests at once.
func (s *Session) enterHTTP(ctx context.Context) (leave func(), err error) {
	s.mu.Lock()
	if s.http == nil {
		s.http = make(chan struct{}, s.httpConcurrency())
	}
	tokens := s.http
	s.mu.Unlock()
	select {
	case tokens <- struct{}{}:
		return func() { <-tokens }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Do implements hostv1.HttpServer.
func (h *httpService) Do(stream httpStream) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	head := first.GetHead()
	ctx := stream.Context()
	s := sessionOf(ctx)
	if head.GetTimeout() > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(head.GetTimeout())*time.Millisecond)
		defer cancel()
	}
	leave, err := s.enterHTTP(ctx)
	if err != nil {
		return err
	}
	defer leave()
	req, err := s.httpRequest(ctx, head, stream)
	if err != nil {
		return err
	}
	defer req.Body.Close() // only read
	out, err := s.httpSink(head.GetSink())
	if err != nil {
		return err
	}
	redirects := hostabi.MaxRedirects
	if head.MaxRedirects != nil {
		redirects = min(int(head.GetMaxRedirects()), redirects)
	}
	c := callOf(ctx)
	resp, err := h.owner.Do(req, redirects, func(u *url.URL) (bool, error) {
		return !s.box.Wildcard(hostabi.NetHTTP, origin(u)), c.need(hostabi.NetHTTP, origin(u))
	})
	if err == nil {
		err = sendResponse(stream, resp, out)
		if cerr := resp.Body.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil && ctx.Err() != nil { // whatever a client makes of it
		return ctx.Err()
	}
	return err
}

func (s *Session) httpSink(id uint32) (*sink, error) {
	if id == 0 {
		return nil, nil
	}
	h, err := s.blobs.get(id)
	if err != nil {
		return nil, err
	}
	k, ok := h.(*sink)
	if !ok {
		return nil, badHandle(id)
	}
	return k, nil
}

// forbiddenHeaders are the host's to set (capabilities.md section 4).
var forbiddenHeaders = []string{"Host", "Connection", "Upgrade", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding"}

func (s *Session) httpRequest(ctx context.Context, head *hostv1.HttpHead, stream httpStream) (req *http.Request, err error) {
	u, err := parseURL(head.GetUrl())
	if err != nil {
		return nil, err
	}
	method := head.GetMethod()
	if method == "" {
		method = http.MethodGet
	}
	if method == http.MethodConnect || method == http.MethodTrace {
		return nil, hostabi.Errorf(hostabi.ReasonBadMessage, "method %s is not offered", method)
	}
	body, err := s.httpBody(ctx, head, stream)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = body.Close() // only read
		}
	}()
	req, err = http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, hostabi.Errorf(hostabi.ReasonBadMessage, "HTTP request: %w", err)
	}
	size := 0
	for _, h := range head.GetHeaders() {
		size += len(h.GetName()) + len(h.GetValue())
		name := http.CanonicalHeaderKey(h.GetName())
		if slices.Contains(forbiddenHeaders, name) {
			return nil, hostabi.Errorf(hostabi.ReasonBadMessage, "header %s is the host's to set", name)
		}
		req.Header.Add(name, h.GetValue())
	}
	if size > hostabi.MaxHTTPHeader {
		return nil, hostabi.Errorf(hostabi.ReasonTooLarge, "headers have %d bytes, at most %d", size, hostabi.MaxHTTPHeader)
	}
	if n := head.GetContentLength(); n > 0 {
		req.ContentLength = n
	}
	return req, nil
}

// httpBody is the body of a request: a file of the run directory, a blob that the plugin may read, or what the
// stream sends. GET and HEAD have one only if they announce it.
func (s *Session) httpBody(ctx context.Context, head *hostv1.HttpHead, stream httpStream) (io.ReadCloser, error) {
	switch {
	case head.GetBodyPath() != "":
		return s.runFile(head.GetBodyPath())
	case head.GetBodyBlob() != "":
		d, err := hostabi.ParseDigest(head.GetBodyBlob())
		if err != nil {
			return nil, err
		}
		return s.openBlob(ctx, d)
	case head.GetContentLength() == 0 && (head.GetMethod() == "" || head.GetMethod() == http.MethodGet || head.GetMethod() == http.MethodHead):
		return http.NoBody, nil
	}
	return io.NopCloser(&httpBody{stream: stream}), nil
}

// httpBody reads the body messages of a request.
type httpBody struct {
	stream httpStream
	rest   []byte
}

func (b *httpBody) Read(p []byte) (int, error) {
	for len(b.rest) == 0 {
		req, err := b.stream.Recv()
		if err != nil {
			return 0, err
		}
		b.rest = req.GetBody()
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// fill is io.ReadFull that keeps the reader's own error: io.EOF is the end of an answer, io.ErrUnexpectedEOF
// one that was cut.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

// sendResponse sends status, body and end; with a sink the body goes there.
func sendResponse(stream httpStream, resp *http.Response, out *sink) error {
	status := &hostv1.HttpStatus{Code: uint32(resp.StatusCode), Url: resp.Request.URL.String()}
	for name, values := range resp.Header {
		for _, v := range values {
			status.Headers = append(status.Headers, &hostv1.Header{Name: name, Value: clean(v, hostabi.MaxHTTPHeader)})
		}
	}
	slices.SortFunc(status.Headers, func(a, b *hostv1.Header) int { return strings.Compare(a.Name, b.Name) })
	if err := stream.Send(&hostv1.HttpResponse{Msg: &hostv1.HttpResponse_Status{Status: status}}); err != nil {
		return err
	}
	end, sum := &hostv1.HttpEnd{}, sha256.New()
	buf := make([]byte, hostabi.MaxHTTPBody)
	for {
		n, err := fill(resp.Body, buf)
		end.Bytes += int64(n)
		if n > 0 {
			var werr error
			if out != nil {
				sum.Write(buf[:n])
				_, werr = out.feed(buf[:n])
			} else {
				werr = stream.Send(&hostv1.HttpResponse{Msg: &hostv1.HttpResponse_Body{Body: buf[:n]}})
			}
			if werr != nil {
				return werr
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return hostabi.Errorf(hostabi.ReasonRegistryUnavailable, "%s: answer of %d bytes so far: %w", resp.Request.URL.Host, end.Bytes, err)
		}
	}
	if out != nil {
		end.Digest = string(hostabi.DigestFromSum(sum.Sum(nil)))
	}
	return stream.Send(&hostv1.HttpResponse{Msg: &hostv1.HttpResponse_End{End: end}})
}
