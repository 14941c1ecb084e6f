package plugin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/delivery-station/ds/hostabi"
)

// JSON is the packaged form of m, the same bytes for equal manifests: settings schema included, build left
// out. ParseManifest reads it. It is an error for a manifest that cannot be packaged: commands still to be
// generated, or more than MaxManifest bytes.
func (m *Manifest) JSON() ([]byte, error) {
	if m.Generated {
		return nil, hostabi.Errorf(hostabi.ReasonManifest, "%s: commands are still to be generated", m.Name).WithFix("ds plugin build")
	}
	b, err := m.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("manifest of %s: %w", m.Name, err)
	}
	if len(b) > MaxManifest {
		return nil, hostabi.Errorf(hostabi.ReasonManifest, "%s: manifest has %d bytes, at most %d", m.Name, len(b), MaxManifest)
	}
	return b, nil
}

// MarshalJSON writes the form that ParseManifest reads.
func (m *Manifest) MarshalJSON() ([]byte, error) {
	if m.Legacy() { // nothing but this is read of it
		return compact(struct {
			Name        Name   `json:"name"`
			Version     string `json:"version,omitempty"`
			Description string `json:"description,omitempty"`
		}{m.Name, m.Version, m.Description})
	}
	type plain Manifest
	p := plain(*m)
	p.Settings = nil
	form := struct {
		plain
		Commands     any `json:"commands,omitempty"`
		ConfigSchema any `json:"config_schema,omitempty"`
	}{plain: p}
	switch {
	case m.Generated:
		form.Commands = "generated"
	case len(m.Commands) > 0:
		form.Commands = m.Commands
	}
	switch {
	case len(m.Settings) > 0:
		form.ConfigSchema = json.RawMessage(m.Settings)
	case m.ConfigSchema != "":
		form.ConfigSchema = m.ConfigSchema
	}
	return compact(form)
}

// UnmarshalJSON reads what MarshalJSON wrote, with the checks of ParseManifest.
func (m *Manifest) UnmarshalJSON(b []byte) error {
	parsed, _, err := ParseManifest("plugin.json", b)
	if err != nil {
		return err
	}
	*m = *parsed
	return nil
}

// MarshalJSON writes the time as text, because a bare number would be read as no duration.
func (l Limits) MarshalJSON() ([]byte, error) {
	form := struct {
		Memory          int64  `json:"memory,omitempty"`
		Time            string `json:"time,omitempty"`
		Tmp             int64  `json:"tmp,omitempty"`
		HTTPConcurrency int    `json:"http_concurrency,omitempty"`
	}{Memory: l.Memory, Tmp: l.Tmp, HTTPConcurrency: l.HTTPConcurrency}
	if l.Time > 0 {
		form.Time = l.Time.String()
	}
	return compact(form)
}

// MarshalJSON writes mode and platforms as members of one object.
func (r RunNative) MarshalJSON() ([]byte, error) {
	form := make(map[string]string, len(r.Platforms)+1)
	for platform, file := range r.Platforms {
		form[platform] = file
	}
	if r.Mode != "" {
		form["mode"] = string(r.Mode)
	}
	return compact(form)
}

// RequestDigest names what is asked for; consent and lock file pin it (capabilities.md section 1). Reasons and
// the order of entries do not count.
func RequestDigest(reqs []Request) hostabi.Digest {
	type entry struct {
		Cap      hostabi.Capability `json:"cap"`
		Scope    []string           `json:"scope"`
		Optional bool               `json:"optional,omitempty"`
		Quota    int64              `json:"quota,omitempty"`
		Sockets  bool               `json:"sockets,omitempty"`
	}
	var merged []entry
	for _, r := range reqs {
		i := slices.IndexFunc(merged, func(e entry) bool {
			return e.Cap == r.Cap && e.Optional == r.Optional && e.Quota == r.Quota && e.Sockets == r.Sockets
		})
		if i < 0 {
			merged = append(merged, entry{r.Cap, nil, r.Optional, r.Quota, r.Sockets})
			i = len(merged) - 1
		}
		merged[i].Scope = append(merged[i].Scope, r.Scope...)
	}
	texts := make([][]byte, len(merged))
	for i, e := range merged {
		slices.Sort(e.Scope)
		e.Scope = slices.Compact(e.Scope)
		texts[i], _ = compact(e) // strings, numbers and bools only
	}
	slices.SortFunc(texts, bytes.Compare)
	return hostabi.DigestOf(slices.Concat([]byte("["), bytes.Join(texts, []byte(",")), []byte("]")))
}

// compact is JSON without spaces and without HTML escapes.
func compact(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
