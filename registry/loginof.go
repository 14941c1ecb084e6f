package registry

import (
	"context"
	"strings"

	"oras.land/oras-go/v2/registry/remote/auth"
)

// LoginOf is the user name and password with which this client would log in to a registry, both empty if it has
// none. A token stands in for a password. Only programs of the original DS, which talk to registries
// themselves, are ever handed one.
func (c *Client) LoginOf(ctx context.Context, host string) (username, password string, err error) {
	cred, _, err := c.creds.lookup(ctx, canonicalHost(strings.ToLower(host)))
	if err != nil || cred == auth.EmptyCredential {
		return "", "", err
	}
	c.learn(cred)
	for _, secret := range []string{cred.Password, cred.RefreshToken, cred.AccessToken} {
		if secret != "" {
			return cred.Username, secret, nil
		}
	}
	return cred.Username, "", nil
}
