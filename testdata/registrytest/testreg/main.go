// Command testreg is a distribution v3 registry on 127.0.0.1 for tests and benchmarks: a registry of strangers'
// making, without the referrers API. It prints its address and ends when its standard input does, so that it
// never outlives the test that started it.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	_ "github.com/distribution/distribution/v3/registry/auth/htpasswd"
	_ "github.com/distribution/distribution/v3/registry/auth/token"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"github.com/sirupsen/logrus"
	"golang.org/x/crypto/bcrypt"
)

type options struct {
	auth, user, password, dir string
}

func main() {
	var o options
	flag.StringVar(&o.auth, "auth", "none", "none, basic or token")
	flag.StringVar(&o.user, "user", "octo", "account")
	flag.StringVar(&o.password, "password", "", "its password")
	flag.StringVar(&o.dir, "dir", "", "where blobs are kept; empty = in memory")
	flag.Parse()
	if err := run(o, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "testreg:", err)
		os.Exit(1)
	}
}

func run(o options, stdin io.Reader, stdout io.Writer) error {
	logrus.SetOutput(io.Discard)
	tmp, err := os.MkdirTemp("", "testreg-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	base := "http://" + l.Addr().String()
	conf, tokens, err := configure(o, base, tmp)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	if tokens != nil {
		mux.Handle("/token", tokens)
	}
	mux.Handle("/", handlers.NewApp(context.Background(), conf))
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	if _, err := fmt.Fprintln(stdout, l.Addr()); err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, stdin) // until whoever started it is gone
	_ = srv.Close()
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func configure(o options, base, tmp string) (*configuration.Configuration, http.Handler, error) {
	conf := &configuration.Configuration{Storage: configuration.Storage{"inmemory": {}}}
	if o.dir != "" {
		conf.Storage = configuration.Storage{"filesystem": {"rootdirectory": o.dir, "maxthreads": 100}}
	}
	conf.Storage["maintenance"] = configuration.Parameters{"uploadpurging": map[any]any{"enabled": false}}
	conf.Storage["delete"] = configuration.Parameters{"enabled": false}
	conf.HTTP.Secret = "only so that there is one"
	conf.HTTP.RelativeURLs = true
	switch o.auth {
	case "none":
		return conf, nil, nil
	case "basic":
		hash, err := bcrypt.GenerateFromPassword([]byte(o.password), bcrypt.MinCost)
		if err != nil {
			return nil, nil, err
		}
		file := filepath.Join(tmp, "htpasswd")
		conf.Auth = configuration.Auth{"htpasswd": {"realm": "testreg", "path": file}}
		return conf, nil, os.WriteFile(file, []byte(o.user+":"+string(hash)+"\n"), 0o600)
	case "token":
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, nil, err
		}
		file := filepath.Join(tmp, "jwks.json")
		jwks, err := jwksOf(&key.PublicKey)
		if err != nil {
			return nil, nil, err
		}
		conf.Auth = configuration.Auth{"token": {"realm": base + "/token", "service": service, "issuer": issuer, "jwks": file}}
		return conf, &tokenServer{o, key}, os.WriteFile(file, jwks, 0o600)
	}
	return nil, nil, fmt.Errorf("-auth %q: want none, basic or token", o.auth)
}
