package client

import (
	"context"
	"slices"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1lite"
)

// Description is what the host says about itself and this run.
type Description struct {
	ABI        string // "ds.host/v1"
	Minor      int
	Version    string   // of ds
	Methods    []string // sorted, "ds.host.v1.Config/Get"; ask Has, never compare versions
	Grants     []hostabi.Grant
	Limits     Limits
	Invocation RunInfo
	Terminal   hostabi.Terminal
	Backend    string // native or wasm
}

// Typed is what the user typed for a path argument whose value in this namespace is value: in WASM a path outside the
// working directory has another name.
func (d *Description) Typed(value string) string {
	for _, p := range d.Invocation.Paths {
		if p.Path == value && p.Typed != "" {
			return p.Typed
		}
	}
	return value
}

// Limits are the host's limits for this run.
type Limits struct {
	MessageBytes, Streams, Handles int
	MemoryBytes                    int64
	Deadline                       time.Time // zero = none
	HTTPConcurrency                int
	CallsLeft                      int // plugins that may still be called below this one
}

// RunInfo is this run as the host sees it.
type RunInfo struct {
	ID, Plugin, Version string
	Command             string // command path of the plugin manifest
	Kind                string // run, complete or event
	Caller              string // calling plugin, empty at top level
	Depth               int
	TraceID             string
	TraceParent         string
	Paths               []hostabi.PathArg
}

// Has reports whether the host serves a method, "ds.host.v1.Registry/Referrers".
func (d *Description) Has(method string) bool {
	_, ok := slices.BinarySearch(d.Methods, method)
	return ok || slices.Contains(d.Methods, method)
}

// Describe asks the host who it is, what this run may do and what it is about.
func (c *Client) Describe(ctx context.Context) (*Description, error) {
	var r hostv1lite.DescribeResponse
	if err := c.invoke(ctx, hostv1lite.MetaDescribe, &hostv1lite.DescribeRequest{}, &r); err != nil {
		return nil, err
	}
	d := &Description{ABI: r.Abi, Minor: int(r.Minor), Version: r.DsVersion, Methods: r.Methods, Backend: r.Backend}
	for _, g := range r.Grants {
		d.Grants = append(d.Grants, hostabi.Grant{
			Cap: hostabi.Capability(g.Cap), Allow: g.Allow, Deny: g.Deny, Quota: int64(g.QuotaBytes), Sockets: g.Sockets,
		})
	}
	if l := r.Limits; l != nil {
		d.Limits = Limits{
			MessageBytes: int(l.MessageBytes), Streams: int(l.Streams), Handles: int(l.Handles), MemoryBytes: int64(l.MemoryBytes),
			Deadline: moment(l.Deadline), HTTPConcurrency: int(l.HttpConcurrency), CallsLeft: int(l.CallsLeft),
		}
	}
	if i := r.Invocation; i != nil {
		d.Invocation = RunInfo{
			ID: i.Id, Plugin: i.Plugin, Version: i.Version, Command: i.Command, Kind: i.Kind, Caller: i.Caller,
			Depth: int(i.Depth), TraceID: i.TraceId, TraceParent: i.Traceparent,
		}
		for _, p := range i.Paths {
			d.Invocation.Paths = append(d.Invocation.Paths, hostabi.PathArg{Index: int(p.Index), Typed: p.Typed, Path: p.Path, Write: p.Write})
		}
	}
	if t := r.Terminal; t != nil {
		d.Terminal = hostabi.Terminal{
			StdinTTY: t.StdinTty, StdoutTTY: t.StdoutTty, StderrTTY: t.StderrTty, Columns: int(t.Columns), Rows: int(t.Rows),
			Color: t.Color, Prompts: t.Prompts, Format: t.Format, Progress: t.Progress,
		}
	}
	return d, nil
}
