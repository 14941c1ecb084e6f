package host

import (
	"context"
	"strings"
	"unicode"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1"
)

// maxKey bounds a configuration key in bytes.
const maxKey = 512

// credentialKey is what the protocol-1 adapter asks for: the login of one registry host. The gate knows it as
// secret.read of "registry:HOST".
const credentialKey = "auth.credentials."

type configService struct {
	hostv1.UnimplementedConfigServer
	owner Config
}

// NewConfig serves Config from c.
func NewConfig(c Config) hostv1.ConfigServer { return &configService{owner: c} }

// gateConfigGet reads the value first, because whether it is a secret decides which capability is needed; the
// handler takes it from the call.
func gateConfigGet(c *call, req any) error {
	key := req.(*hostv1.GetConfigRequest).GetKey()
	if err := checkKey(key); err != nil {
		return err
	}
	if host, ok := strings.CutPrefix(key, credentialKey); ok {
		if err := c.need(hostabi.SecretRead, "registry:"+host); err != nil {
			return err
		}
	}
	svc := c.m.impl.(*configService)
	v, err := svc.owner.Get(c, c.s.p.Name, key)
	c.config = config{value: v, err: err, ok: true}
	switch {
	case strings.HasPrefix(key, credentialKey):
		return nil
	case err == nil && v.Secret:
		return c.need(hostabi.SecretRead, key)
	}
	return c.need(hostabi.ConfigRead, key)
}

// Get implements hostv1.ConfigServer.
func (*configService) Get(ctx context.Context, _ *hostv1.GetConfigRequest) (*hostv1.ConfigValue, error) {
	got := callOf(ctx).config
	if !got.ok {
		return nil, hostabi.Errorf(hostabi.ReasonInternal, "configuration value was not checked")
	}
	if got.err != nil {
		return nil, got.err
	}
	return configValue(got.value), nil
}

// List implements hostv1.ConfigServer. Secrets are listed without their value.
func (c *configService) List(ctx context.Context, req *hostv1.ListConfigRequest) (*hostv1.ConfigTree, error) {
	s := sessionOf(ctx)
	if p := req.GetPrefix(); p != "" {
		if err := checkKey(strings.TrimSuffix(p, ".")); err != nil {
			return nil, err
		}
	}
	values, err := c.owner.List(ctx, s.p.Name, req.GetPrefix())
	if err != nil {
		return nil, err
	}
	out := &hostv1.ConfigTree{}
	for _, v := range values {
		if !s.allows(hostabi.ConfigRead, v.Key) {
			continue
		}
		if v.Secret {
			v.JSON = ""
		}
		out.Values = append(out.Values, configValue(v))
	}
	return out, nil
}

func configValue(v hostabi.ConfigValue) *hostv1.ConfigValue {
	return &hostv1.ConfigValue{Key: v.Key, Json: v.JSON, Origin: v.Origin, Secret: v.Secret}
}

// checkKey refuses keys that could be read in two ways.
func checkKey(key string) error {
	bad := key == "" || len(key) > maxKey || strings.HasPrefix(key, ".") || strings.HasSuffix(key, ".") ||
		strings.Contains(key, "..") || strings.IndexFunc(key, func(r rune) bool { return unicode.IsSpace(r) || unclean(r) || r == '*' }) >= 0
	if bad {
		return hostabi.Errorf(hostabi.ReasonConfigKey, "configuration key %q: not segments joined by dots", clean(key, 80))
	}
	return nil
}
