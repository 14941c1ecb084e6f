package manager

import (
	"encoding/json"
	"strings"

	"github.com/delivery-station/ds/hostabi"
)

// eventLine is e in protobuf-JSON, ds.host.v1.Event, with a newline: 64-bit numbers are strings and what is empty is
// left out.
func eventLine(e *hostabi.Event) ([]byte, error) {
	b, err := json.Marshal(struct {
		ID          string            `json:"id,omitempty"`
		Topic       string            `json:"topic,omitempty"`
		Source      string            `json:"source,omitempty"`
		Time        int64             `json:"time,string,omitempty"`
		TraceID     string            `json:"traceId,omitempty"`
		ContentType string            `json:"contentType,omitempty"`
		Data        []byte            `json:"data,omitempty"`
		Attributes  map[string]string `json:"attributes,omitempty"`
		Blobs       []hostabi.Digest  `json:"blobs,omitempty"`
		Hops        uint32            `json:"hops,omitempty"`
		Dropped     uint64            `json:"dropped,string,omitempty"`
	}{e.ID, e.Topic, e.Source, e.Time.UnixMilli(), e.TraceID, e.ContentType, e.Data, e.Attributes, e.Blobs, e.Hops, e.Dropped})
	return append(b, '\n'), err
}

// localSource reports whether an event comes from a plugin of this process.
func localSource(source string) bool { return strings.HasPrefix(source, "/plugins/") }
