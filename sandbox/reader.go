package sandbox

import (
	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/yamlfile"
	"github.com/delivery-station/ds/plugin"
)

// reader reads grants.yaml and policy.yaml.
type reader struct{ yamlfile.Reader }

func newReader(name string) *reader {
	return &reader{yamlfile.Reader{Name: name, Suggest: plugin.Suggest}}
}

func (r *reader) capabilities(n *yamlfile.Node, what string, f func(c hostabi.Capability, n *yamlfile.Node)) {
	fields := make(map[string]func(*yamlfile.Node), 16)
	for _, c := range hostabi.Capabilities() {
		fields[string(c)] = func(n *yamlfile.Node) { f(c, n) }
	}
	r.Object(n, what, fields)
}

func (r *reader) size(n *yamlfile.Node, what string) int64 {
	v, err := yamlfile.ParseSize(r.Str(n, what))
	if err != nil {
		r.Errorf(n, "%s: %s", what, err)
	}
	return v
}
