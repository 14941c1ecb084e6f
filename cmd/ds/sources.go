package main

import (
	"context"
	"iter"
	"strings"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin/install"
	"github.com/delivery-station/ds/registry"
)

// sources finds plugin repositories for install: the registry client, and for a short name the repository
// NAME of registry.default, then ds-NAME.
type sources struct {
	client func() (*registry.Client, error)
}

func (s sources) Source(ref string) (install.Source, bool, error) {
	c, err := s.client()
	if err != nil {
		return nil, false, err
	}
	parsed, err := c.Parse(ref)
	if err != nil {
		return nil, false, err
	}
	repo, err := c.Repository(ref)
	if err != nil {
		return nil, false, err
	}
	return source{repo, parsed.Name()}, parsed.Tag != "" || parsed.Digest != "", nil
}

func (s sources) Tags(ctx context.Context, repository string) iter.Seq2[string, error] {
	c, err := s.client()
	if err != nil {
		return func(yield func(string, error) bool) { yield("", err) }
	}
	return c.Tags(ctx, repository)
}

type source struct {
	*registry.Repository
	name string
}

func (s source) Name() string { return s.name }

// splitConstraint cuts NAME@CONSTRAINT or REPOSITORY@CONSTRAINT; what follows the last @ is a digest if it
// looks like one and stays with the reference.
func splitConstraint(ref string) (base, constraint string) {
	i := strings.LastIndexByte(ref, '@')
	if i <= 0 || strings.HasPrefix(ref[i+1:], "sha256:") || hostabi.Digest(ref[i+1:]).Valid() {
		return ref, ""
	}
	return ref[:i], ref[i+1:]
}
