package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"strings"
	"sync"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"

	"github.com/delivery-station/ds/hostabi"
)

const (
	helperTimeout    = 10 * time.Second
	maxCredentials   = 1 << 20
	maxCAFile        = 16 << 20
	dockerHubAuthKey = "https://index.docker.io/v1/"
)

// credentialSources finds credentials: the configured ones, then files of docker's format in their order.
// Files are read at the first need, and again after forget.
type credentialSources struct {
	static []Credential
	paths  []string

	mu     sync.Mutex
	loaded bool
	read   []*credentialFile
	err    error
}

// credentialFile is a file of docker's format.
type credentialFile struct {
	path    string
	keys    map[string]bool   // of auths
	helpers map[string]string // credHelpers
	helper  string            // credsStore
	store   *credentials.DynamicStore
}

const configSource = "auth.credentials"

// names are the spellings of key in the sources.
func names(key string) []string {
	if key == dockerHub {
		return []string{dockerHubAuthKey, dockerHub, dockerHubAPI}
	}
	return []string{key}
}

// key is the longest of host/a/b, host/a, host that some source has an entry for; host if none has.
func (s *credentialSources) key(host, repository string) string {
	files, err := s.files()
	if err != nil {
		return host // the error is told by lookup
	}
	for key := host + "/" + repository; key != host; key = key[:strings.LastIndexByte(key, '/')] {
		for _, c := range s.static {
			if c.Registry == key {
				return key
			}
		}
		for _, f := range files {
			if f.keys[key] {
				return key
			}
		}
	}
	return host
}

// lookup asks the sources for key in their order; the first answer wins. source names it.
func (s *credentialSources) lookup(ctx context.Context, key string) (cred auth.Credential, source string, err error) {
	s.answers(ctx, key, &err)(func(c auth.Credential, from string) bool {
		cred, source = c, from
		return false
	})
	return cred, source, err
}

// answers yields what the sources know of key, in their order. An error ends it and is left in fail.
func (s *credentialSources) answers(ctx context.Context, key string, fail *error) iter.Seq2[auth.Credential, string] {
	return func(yield func(auth.Credential, string) bool) {
		files, err := s.files()
		if err != nil {
			*fail = err
			return
		}
		for _, name := range names(key) {
			for _, c := range s.static {
				if (c.Registry == name || canonicalHost(c.Registry) == name) && !yield(c.auth(), configSource) {
					return
				}
			}
		}
		ctx, cancel := context.WithTimeout(ctx, helperTimeout)
		defer cancel()
		for _, f := range files {
			for _, name := range names(key) {
				cred, err := f.store.Get(ctx, name)
				if err != nil {
					// The text of a helper may hold anything, so it is not passed on.
					*fail = hostabi.Errorf(hostabi.ReasonCredentialHelper, "credentials for %s from %s: the entry or its helper failed", key, f.path)
					return
				}
				if cred != auth.EmptyCredential && !yield(cred, f.path) {
					return
				}
			}
		}
	}
}

func (c Credential) auth() auth.Credential {
	switch {
	case c.Token == "":
		return auth.Credential{Username: c.Username, Password: c.Password}
	case c.Username != "":
		return auth.Credential{Username: c.Username, Password: c.Token}
	}
	return auth.Credential{RefreshToken: c.Token}
}

func (s *credentialSources) files() ([]*credentialFile, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.loaded {
		return s.read, s.err
	}
	s.loaded, s.read, s.err = true, nil, nil
	for _, path := range s.paths {
		f, err := openCredentials(path)
		if err != nil {
			s.err = err
			break
		}
		if f != nil {
			s.read = append(s.read, f)
		}
	}
	return s.read, s.err
}

// forget makes the files be read again.
func (s *credentialSources) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loaded = false
}

// openCredentials reads one file; nil if there is none.
func openCredentials(path string) (*credentialFile, error) {
	b, err := readUpTo(path, maxCredentials+1)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	bad := func(format string, a ...any) error {
		e := hostabi.Errorf(hostabi.ReasonCredentialHelper, format, a...)
		e.Op = path
		return e
	}
	if err != nil {
		return nil, bad("credential file: %w", err)
	}
	if len(b) > maxCredentials {
		return nil, bad("credential file is over %d bytes", maxCredentials)
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return nil, nil
	}
	var head struct {
		Auths       map[string]json.RawMessage `json:"auths"`
		CredHelpers map[string]string          `json:"credHelpers"`
		CredsStore  string                     `json:"credsStore"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, bad("credential file is invalid at line %d", lineOf(b, err))
	}
	store, err := credentials.NewStore(path, credentials.StoreOptions{})
	if err != nil {
		return nil, bad("credential file is invalid")
	}
	f := &credentialFile{path: path, keys: make(map[string]bool, len(head.Auths)), helpers: head.CredHelpers, helper: head.CredsStore, store: store}
	for k := range head.Auths {
		f.keys[k] = true
	}
	return f, nil
}

// lineOf is the line that a JSON error is about.
func lineOf(b []byte, err error) int {
	offset := int64(0)
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		offset = e.Offset
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		offset = e.Offset
	}
	return 1 + bytes.Count(b[:min(int(offset), len(b))], []byte("\n"))
}

// String hides the secret.
func (c Credential) String() string { return fmt.Sprintf("%s: %s:***", c.Registry, c.Username) }

// GoString hides the secret.
func (c Credential) GoString() string { return c.String() }

// readUpTo reads at most limit bytes of a file, whatever it is.
func readUpTo(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read-only
	return io.ReadAll(io.LimitReader(f, limit))
}
