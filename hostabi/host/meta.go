package host

import (
	"context"
	"path/filepath"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1"
	"github.com/delivery-station/ds/plugin"
)

type metaService struct {
	hostv1.UnimplementedMetaServer
}

// NewMeta serves Meta: what this host offers and what the run is.
func NewMeta() hostv1.MetaServer { return metaService{} }

// Describe implements hostv1.MetaServer.
func (metaService) Describe(ctx context.Context, _ *hostv1.DescribeRequest) (*hostv1.DescribeResponse, error) {
	s := sessionOf(ctx)
	t := s.inv.Terminal
	return &hostv1.DescribeResponse{
		Abi: hostabi.ABI, Minor: hostabi.Minor, DsVersion: s.r.o.Version, Methods: s.r.names,
		Grants: s.grants(), Limits: s.limits(), Invocation: s.invocation(), Backend: string(s.kind()),
		Terminal: &hostv1.Terminal{
			StdinTty: t.StdinTTY, StdoutTty: t.StdoutTTY, StderrTty: t.StderrTTY, Columns: uint32(t.Columns), Rows: uint32(t.Rows),
			Color: t.Color, Prompts: t.Prompts && !s.inv.NoInput, Format: t.Format, Progress: t.Progress,
		},
	}, nil
}

func (s *Session) grants() []*hostv1.Grant {
	var out []*hostv1.Grant
	for _, g := range s.box.Grants() {
		out = append(out, &hostv1.Grant{Cap: string(g.Cap), Allow: g.Allow, Deny: g.Deny, QuotaBytes: uint64(max(g.Quota, 0)), Sockets: g.Sockets})
	}
	return out
}

func (s *Session) limits() *hostv1.Limits {
	l := s.box.Limits()
	out := &hostv1.Limits{
		MessageBytes: hostabi.MaxMessage, Streams: hostabi.MaxStreams, Handles: hostabi.MaxHandles,
		MemoryBytes: uint64(max(l.Memory, 0)), HttpConcurrency: uint32(s.httpConcurrency()),
		CallsLeft: uint32(max(hostabi.MaxDepth-s.depth(), 0)),
	}
	if d, ok := s.ctx.Deadline(); ok {
		out.Deadline = d.UnixMilli()
	}
	return out
}

// depth is the number of plugins in the chain, this one included.
func (s *Session) depth() int { return len(s.inv.Chain) + 1 }

func (s *Session) invocation() *hostv1.Invocation {
	return &hostv1.Invocation{
		Id: s.inv.ID, Plugin: string(s.p.Name), Version: s.p.Version, Command: s.inv.Command, Kind: s.inv.Kind,
		Caller: string(s.inv.Caller), Depth: uint32(len(s.inv.Chain)), TraceId: s.inv.TraceID, Traceparent: s.inv.TraceParent,
		Paths: s.paths(),
	}
}

// paths are the path arguments in the namespace of the plugin. Index counts argv, whose first word is the
// plugin's own.
func (s *Session) paths() []*hostv1.PathArg {
	var out []*hostv1.PathArg
	if s.kind() == plugin.WASM {
		paths := s.inv.Paths
		if paths == nil {
			_, paths = s.box.Paths()
		}
		for _, p := range paths {
			out = append(out, &hostv1.PathArg{Index: uint32(p.Index), Typed: p.Typed, Path: p.Path, Write: p.Write})
		}
		return out
	}
	for _, t := range s.inv.Typed {
		if t.Type != "path" {
			continue
		}
		path := t.Value
		if !filepath.IsAbs(path) {
			path = filepath.Join(s.inv.Dir, path)
		}
		out = append(out, &hostv1.PathArg{Index: uint32(t.Index + 1), Typed: t.Value, Path: path, Write: t.Mode != "read" && t.Mode != ""})
	}
	return out
}
