package registry

import (
	"bytes"
	"encoding/base64"
	"io"
	"net/http"
	"strings"

	"oras.land/oras-go/v2/registry/remote/auth"
)

// learn makes a credential known to the scrubber, before it can be anywhere else.
func (c *Client) learn(cred auth.Credential) {
	c.o.Secrets.Add(cred.Password, cred.RefreshToken, cred.AccessToken)
}

// keepSecret makes known what an Authorization header holds: a token that a server gave, or a login.
func (c *Client) keepSecret(h http.Header) {
	scheme, value, _ := strings.Cut(h.Get("Authorization"), " ")
	if value == "" {
		return
	}
	c.o.Secrets.Add(value)
	if strings.EqualFold(scheme, "Basic") {
		if login, err := base64.StdEncoding.DecodeString(value); err == nil {
			_, password, _ := strings.Cut(string(login), ":")
			c.o.Secrets.Add(password)
		}
	}
}

// scrubError takes secrets out of an error that a server wrote: it may repeat what it was sent, and its text
// goes to plugins and logs.
func (c *Client) scrubError(resp *http.Response) (*http.Response, error) {
	if resp.StatusCode < 400 || resp.Body == nil {
		return resp, nil
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if cerr := resp.Body.Close(); err == nil {
		err = cerr
	}
	if err != nil && len(b) == 0 {
		return nil, err // an answer without a text is as good as none
	}
	b = c.o.Secrets.Bytes(b)
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
	resp.Header.Del("Content-Length")
	return resp, nil
}
