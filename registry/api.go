package registry

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

var errTODO = errors.New("not built")

type Client struct{}
type Reference struct {
	Host, Repository, Path, Tag string
	Digest                      hostabi.Digest
}
type Repository struct{}
type Refs interface {
	SetRef(ctx context.Context, name string, d hostabi.Descriptor) error
	Ref(ctx context.Context, name string) (hostabi.Descriptor, time.Time, error)
}

func ParseReference(s string) (Reference, error)       { return Reference{}, errTODO }
func (r Reference) Name() string                       { return "" }
func (r Reference) String() string                     { return "" }
func New(o Options) (*Client, error)                   { return &Client{}, nil }
func (c *Client) Parse(ref string) (Reference, error)  { return Reference{}, errTODO }
func (c *Client) Canonical(ref string) (string, error) { return "", errTODO }
func (c *Client) Resolve(ctx context.Context, ref string) (hostabi.Descriptor, error) {
	return hostabi.Descriptor{}, errTODO
}
func (c *Client) Pull(ctx context.Context, ref string, o hostabi.PullOptions, into hostabi.Sink, p func(hostabi.Progress)) (hostabi.Descriptor, error) {
	return hostabi.Descriptor{}, errTODO
}
func (c *Client) Push(ctx context.Context, ref string, root hostabi.Descriptor, from hostabi.OpenFunc, p func(hostabi.Progress)) error {
	return errTODO
}
func (c *Client) Tag(ctx context.Context, ref, tag string) error                 { return errTODO }
func (c *Client) Tags(ctx context.Context, repo string) iter.Seq2[string, error] { return nil }
func (c *Client) Referrers(ctx context.Context, repo string, subject hostabi.Digest, artifactType string) iter.Seq2[hostabi.Descriptor, error] {
	return nil
}
func (c *Client) Attach(ctx context.Context, repo string, subject hostabi.Descriptor, r Referrer) (hostabi.Descriptor, error) {
	return hostabi.Descriptor{}, errTODO
}
func (c *Client) Copy(ctx context.Context, src, dst string, o CopyOptions) (hostabi.Descriptor, error) {
	return hostabi.Descriptor{}, errTODO
}
func (c *Client) Repository(ref string) (*Repository, error) { return nil, errTODO }
func (r *Repository) Resolve(ctx context.Context, ref string) (hostabi.Descriptor, error) {
	return hostabi.Descriptor{}, errTODO
}
func (r *Repository) Manifest(ctx context.Context, d hostabi.Descriptor) ([]byte, error) {
	return nil, errTODO
}
func (r *Repository) Fetch(ctx context.Context, d hostabi.Descriptor, into hostabi.Sink) error {
	return errTODO
}
