package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// through runs a program that reaches the registry at host through a proxy on this machine, which it finds as {proxy}
// among its words. With cut, the first answer to the GET of each blob ends after 30 % of it. It prints how many bytes
// of blobs went over the wire; the program has to print want.
func through(mode, host, want string, argv []string) error {
	p := &proxy{host: host, cut: mode == "cut", seen: make(map[string]bool)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: p, ReadHeaderTimeout: time.Minute}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	for i, word := range argv {
		argv[i] = strings.ReplaceAll(word, "{proxy}", l.Addr().String())
	}
	var out bytes.Buffer
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	err = cmd.Run()
	if err == nil && !strings.Contains(out.String(), want) {
		err = fmt.Errorf("%s did not print %s", argv[0], want)
	}
	if cerr := server.Close(); err == nil {
		err = cerr
	}
	if serr := <-done; err == nil && !errors.Is(serr, http.ErrServerClosed) {
		err = serr
	}
	if err == nil && p.cut && p.cuts.Load() == 0 {
		err = errors.New("nothing was cut")
	}
	if err == nil {
		_, err = fmt.Println("wire bytes", p.bytes.Load())
	}
	return err
}

// proxy hands requests on and counts the bytes of blobs.
type proxy struct {
	host        string
	cut         bool
	bytes, cuts atomic.Int64

	mu   sync.Mutex
	seen map[string]bool
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host, out.Host, out.RequestURI = "http", p.host, p.host, ""
	resp, err := http.DefaultTransport.RoundTrip(out)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	for k, v := range resp.Header {
		w.Header()[k] = v
	}
	w.WriteHeader(resp.StatusCode)
	blob := r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/")
	if !blob {
		_, _ = io.Copy(w, resp.Body) // the client sees the end
		return
	}
	if p.first(r.URL.Path) && p.cut {
		n, _ := io.CopyN(w, resp.Body, resp.ContentLength*3/10)
		p.bytes.Add(n)
		p.cuts.Add(1)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	n, _ := io.Copy(w, resp.Body)
	p.bytes.Add(n)
}

// first reports whether path was not asked for before.
func (p *proxy) first(path string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.seen[path]
	p.seen[path] = true
	return !before
}
