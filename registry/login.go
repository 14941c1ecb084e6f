package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
)

// hostReference is a host that a user typed.
func hostReference(name string) (Reference, error) {
	host := canonicalHost(strings.TrimSuffix(strings.TrimPrefix(name, remoteScheme), "/"))
	if host == "" {
		return Reference{}, badRef(name, "is no HOST[:PORT]")
	}
	return Reference{Host: host}, nil
}

// storedKey is what an entry of a host is called in credential files.
func storedKey(host string) string { return names(host)[0] }

// Login asks host whether it takes a credential, and then stores it: in the credential helper that docker's
// configuration names, else in one that this machine has, else in Options.AuthFile. stored says where, plain
// whether anybody who can read that file can read the secret. store false only asks.
func (c *Client) Login(ctx context.Context, host string, cr Credential, store bool) (stored string, plain bool, err error) {
	ref, err := hostReference(host)
	if err != nil {
		return "", false, err
	}
	c.o.Secrets.Add(cr.Password, cr.Token)
	h, err := c.host(ref)
	if err != nil {
		return "", false, failure("login", ref, "", err)
	}
	client := h.authClient(func(context.Context) (auth.Credential, error) { return cr.auth(), nil })
	if err := h.probe(ctx, client); err != nil {
		return "", false, failure("login", ref, "the command line", err)
	}
	if !store {
		return "", false, nil
	}
	stored, plain, err = c.keep(ctx, storedKey(ref.Host), cr)
	c.forget(h)
	return stored, plain, failure("login", ref, "", err)
}

// probe is a request for /v2/ that a registry answers to those it knows.
func (h *host) probe(ctx context.Context, client *auth.Client) error {
	resp, err := h.get(ctx, client, "/v2/")
	if err != nil {
		return err
	}
	defer drain(resp)
	if resp.StatusCode != http.StatusOK {
		return answerError(resp)
	}
	return nil
}

// getter is an http.Client or an auth.Client.
type getter interface {
	Do(q *http.Request) (*http.Response, error)
}

func (h *host) get(ctx context.Context, client getter, path string) (*http.Response, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, h.scheme()+"://"+h.name+path, nil)
	if err != nil {
		return nil, err
	}
	return client.Do(q)
}

func (h *host) scheme() string {
	if h.plain {
		return "http"
	}
	return "https"
}

// forget makes the next request look credentials up again.
func (c *Client) forget(h *host) {
	c.creds.forget()
	h.mu.Lock()
	h.logins = make(map[string]*login)
	h.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.repos, func(_ string, r *remoteRepo) bool { return r.h == h })
}

// keep stores a credential under key.
func (c *Client) keep(ctx context.Context, key string, cr Credential) (stored string, plain bool, err error) {
	files, err := c.creds.files()
	if err != nil {
		return "", false, err
	}
	for _, f := range files {
		helper := f.helperOf(key)
		if helper == "" {
			continue
		}
		if err := c.callHelper(ctx, func(ctx context.Context) error { return credentials.NewNativeStore(helper).Put(ctx, key, cr.auth()) }); err != nil {
			return "", false, helperFailed(helper, "store", key)
		}
		return helperName(helper), false, c.editAuth(ctx, func(a *authFile) { delete(a.auths, key) }) // it would come first
	}
	if c.o.AuthFile == "" {
		return "", false, hostabi.Errorf(hostabi.ReasonCredentialHelper, "there is no credential helper and no file to store in")
	}
	if helper := detectHelper(); helper != "" {
		err := c.callHelper(ctx, func(ctx context.Context) error { return credentials.NewNativeStore(helper).Put(ctx, key, cr.auth()) })
		if err == nil {
			return helperName(helper), false, c.editAuth(ctx, func(a *authFile) {
				delete(a.auths, key)
				a.helpers[key] = helper
			})
		} // a helper that nobody asked for may not work, like a keyring without a session
	}
	err = c.editAuth(ctx, func(a *authFile) {
		delete(a.helpers, key)
		a.auths[key] = authEntry(cr.auth())
	})
	return c.o.AuthFile, true, err
}

// helperOf is the program that keeps the credential of key, by what the file says.
func (f *credentialFile) helperOf(key string) string {
	if h := f.helpers[key]; h != "" {
		return h
	}
	return f.helper
}

func helperName(suffix string) string { return "docker-credential-" + suffix }

func (c *Client) callHelper(ctx context.Context, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	return f(ctx)
}

// helperFailed says nothing that the helper wrote: it may hold anything.
func helperFailed(helper, what, key string) error {
	return hostabi.Errorf(hostabi.ReasonCredentialHelper, "%s failed to %s the credentials of %s", helperName(helper), what, key)
}

// detectHelper is the credential helper that this system usually has, if it is installed.
func detectHelper() string {
	candidates := map[string][]string{"darwin": {"osxkeychain"}, "windows": {"wincred"}, "linux": {"secretservice", "pass"}}[runtime.GOOS]
	for _, c := range candidates {
		if _, err := exec.LookPath(helperName(c)); err == nil {
			return c
		}
	}
	return ""
}

// Logout deletes the credential of host where Login stores it. removed lists the places, left the sources
// that still have one.
func (c *Client) Logout(ctx context.Context, host string, dryRun bool) (removed, left []string, err error) {
	ref, err := hostReference(host)
	if err != nil {
		return nil, nil, err
	}
	key := storedKey(ref.Host)
	files, err := c.creds.files()
	if err != nil {
		return nil, nil, failure("logout", ref, "", err)
	}
	for _, f := range files {
		switch helper := f.helperOf(key); {
		case helper != "":
			cred, err := f.store.Get(ctx, key)
			if err != nil {
				return removed, nil, failure("logout", ref, "", helperFailed(helper, "look up", key))
			}
			if cred == auth.EmptyCredential {
				continue
			}
			if !dryRun {
				if err := c.callHelper(ctx, func(ctx context.Context) error { return credentials.NewNativeStore(helper).Delete(ctx, key) }); err != nil {
					return removed, nil, failure("logout", ref, "", helperFailed(helper, "delete", key))
				}
			}
			removed = append(removed, helperName(helper))
		case f.path == c.o.AuthFile && f.keys[key]:
			removed = append(removed, f.path)
		}
	}
	if dryRun {
		return removed, nil, nil
	}
	err = c.editAuth(ctx, func(a *authFile) {
		delete(a.auths, key)
		delete(a.helpers, key)
	})
	if err != nil {
		return removed, nil, failure("logout", ref, "", err)
	}
	c.creds.forget()
	for _, source := range c.creds.answers(ctx, ref.Host, &err) {
		if !slices.Contains(left, source) {
			left = append(left, source)
		}
	}
	return removed, left, failure("logout", ref, "", err)
}

// LoginInfo is one credential that this client would use, without its secret.
type LoginInfo struct {
	Host   string // or a path below one
	User   string // empty for an identity token
	Source string // auth.credentials or a file
}

// Logins lists who one is where; the first entry of a host is the one that is used. Of helpers only the
// hosts that a file names are asked.
func (c *Client) Logins(ctx context.Context) (list []LoginInfo, err error) {
	for _, s := range c.o.Credentials {
		list = append(list, LoginInfo{s.Registry, s.Username, configSource})
	}
	files, err := c.creds.files()
	if err != nil {
		return list, err
	}
	ctx, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	for _, f := range files {
		keys := maps.Clone(f.keys)
		for k := range f.helpers {
			keys[k] = true
		}
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			cred, err := f.store.Get(ctx, key)
			if err != nil {
				return list, hostabi.Errorf(hostabi.ReasonCredentialHelper, "credentials for %s from %s: the entry or its helper failed", clip(key, 200), f.path)
			}
			if cred == auth.EmptyCredential {
				continue
			}
			host := key
			if key == dockerHubAuthKey {
				host = dockerHub
			}
			source := f.path
			if h := f.helperOf(key); h != "" {
				source = helperName(h)
			}
			list = append(list, LoginInfo{host, cred.Username, source})
		}
	}
	return list, nil
}

// authFile is a file of docker's format that is changed; members that this package does not know stay.
type authFile struct {
	auths   map[string]json.RawMessage
	helpers map[string]string
}

// editAuth changes Options.AuthFile under its lock; what becomes empty is not written.
func (c *Client) editAuth(ctx context.Context, change func(*authFile)) error {
	if c.o.AuthFile == "" {
		return nil
	}
	if _, err := c.fs.Lstat(c.o.AuthFile); err != nil {
		probe := authFile{map[string]json.RawMessage{}, map[string]string{}}
		if change(&probe); len(probe.auths)+len(probe.helpers) == 0 {
			return nil // nothing to take out of a file that is not there
		}
	}
	if err := atomicfile.MkdirAll(c.fs, filepath.Dir(c.o.AuthFile), 0o700); err != nil {
		return err
	}
	return atomicfile.Edit(ctx, c.fs, c.o.AuthFile, func(old []byte) ([]byte, error) {
		all := make(map[string]json.RawMessage)
		if len(bytes.TrimSpace(old)) > 0 {
			if err := json.Unmarshal(old, &all); err != nil {
				return nil, errAuthFile
			}
		}
		a := authFile{make(map[string]json.RawMessage), make(map[string]string)}
		if take(all, "auths", &a.auths) != nil || take(all, "credHelpers", &a.helpers) != nil {
			return nil, errAuthFile
		}
		change(&a)
		if err := errors.Join(give(all, "auths", a.auths), give(all, "credHelpers", a.helpers)); err != nil {
			return nil, err
		}
		b, err := json.MarshalIndent(all, "", "\t")
		return append(b, '\n'), err
	})
}

var errAuthFile = hostabi.Errorf(hostabi.ReasonCredentialHelper, "the file of credentials is invalid")

func take[V any](all map[string]json.RawMessage, name string, into *map[string]V) error {
	raw, ok := all[name]
	if !ok {
		return nil
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return err
	}
	if *into == nil { // null
		*into = make(map[string]V)
	}
	return nil
}

func give[V any](all map[string]json.RawMessage, name string, m map[string]V) error {
	if delete(all, name); len(m) == 0 {
		return nil
	}
	b, err := json.Marshal(m)
	all[name] = b
	return err
}

// authEntry is a credential as docker's files write it.
func authEntry(cred auth.Credential) json.RawMessage {
	entry := struct {
		Auth          string `json:"auth,omitempty"`
		IdentityToken string `json:"identitytoken,omitempty"`
	}{IdentityToken: cred.RefreshToken}
	if cred.Username != "" {
		entry.Auth = base64.StdEncoding.EncodeToString([]byte(cred.Username + ":" + cred.Password))
	}
	b, _ := json.Marshal(entry) // of strings
	return b
}
