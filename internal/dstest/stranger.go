package dstest

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"strings"
)

// stranger is a registry of another make, a program that prints its address and ends when its standard input does.
type stranger struct {
	cmd   *exec.Cmd
	stdin io.Closer
}

// StartStranger starts program (testdata/registrytest builds one) and puts log and faults in front of it; the caller
// closes it. Credentials are the program's own business.
func StartStranger(program string, args ...string) (*RegistryServer, error) {
	cmd := exec.Command(program, args...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("test registry: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("test registry: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("test registry: %w", err)
	}
	s := &stranger{cmd: cmd, stdin: stdin}
	host, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		s.close()
		return nil, fmt.Errorf("test registry %s: %w", program, err)
	}
	r := &RegistryServer{stranger: s}
	target := &url.URL{Scheme: "http", Host: strings.TrimSpace(host)}
	r.inner = &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(target); p.Out.Host = p.In.Host },
		ModifyResponse: func(a *http.Response) error { // tokens come from where the registry is
			if v := a.Header.Get("WWW-Authenticate"); v != "" {
				a.Header.Set("WWW-Authenticate", strings.ReplaceAll(v, target.String(), r.URL))
			}
			return nil
		},
	}
	if err := r.start(); err != nil {
		s.close()
		return nil, err
	}
	return r, nil
}

func (s *stranger) close() {
	_ = s.stdin.Close() // it ends with this
	_ = s.cmd.Wait()
}
