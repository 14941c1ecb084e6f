package hostabi

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// timeFormat is RFC 3339 with milliseconds, as CloudEvents 1.0 times are written here.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// CloudEvent is the JSON form of e, one CloudEvents 1.0 object without a newline, as the event log and NATS
// carry it. JSON data is embedded as data, everything else as data_base64.
func (e *Event) CloudEvent() ([]byte, error) {
	m := map[string]any{
		"specversion": "1.0", "id": e.ID, "type": e.Topic, "source": e.Source,
		"time": e.Time.UTC().Format(timeFormat),
	}
	contentType := e.ContentType
	if contentType == "" {
		contentType = "application/json"
	}
	m["datacontenttype"] = contentType
	switch {
	case len(e.Data) == 0:
	case contentType == "application/json" && json.Valid(e.Data):
		m["data"] = json.RawMessage(e.Data)
	default:
		m["data_base64"] = base64.StdEncoding.EncodeToString(e.Data)
	}
	if traceOf(e.TraceParent) != "" {
		m["traceparent"] = e.TraceParent
	}
	for k, v := range e.Attributes {
		m[k] = v
	}
	if len(e.Blobs) > 0 {
		blobs := make([]string, len(e.Blobs))
		for i, d := range e.Blobs {
			blobs[i] = string(d)
		}
		m["dsblobs"] = strings.Join(blobs, " ")
	}
	if e.Hops > 0 {
		m["dshops"] = e.Hops
	}
	if e.Dropped > 0 {
		m["dsdropped"] = strconv.FormatUint(e.Dropped, 10)
	}
	b, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("event %s: %w", e.ID, err)
	}
	return b, nil
}

// ParseCloudEvent reads what CloudEvent wrote, or any CloudEvents 1.0 JSON object that breaks no rule of
// CheckEvent. The error has reason BAD_MESSAGE or BAD_TOPIC.
func ParseCloudEvent(b []byte) (Event, error) {
	var head struct {
		SpecVersion, ID, Type, Source, Time, DataContentType, TraceParent, DSBlobs, DSDropped string
		Data                                                                                  json.RawMessage
		DataBase64                                                                            []byte `json:"data_base64"`
		DSHops                                                                                uint32
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(b, &head); err != nil {
		return Event{}, Errorf(ReasonBadMessage, "event is no CloudEvents object: %w", err)
	}
	if err := json.Unmarshal(b, &all); err != nil {
		return Event{}, Errorf(ReasonBadMessage, "event is no CloudEvents object: %w", err)
	}
	if head.SpecVersion != "1.0" {
		return Event{}, Errorf(ReasonBadMessage, "event has specversion %q, want 1.0", clip(head.SpecVersion, 20))
	}
	e := Event{ID: head.ID, Topic: head.Type, Source: head.Source, ContentType: head.DataContentType, TraceID: traceOf(head.TraceParent), Hops: head.DSHops}
	if e.TraceID != "" {
		e.TraceParent = head.TraceParent
	}
	if head.Time != "" {
		t, err := time.Parse(time.RFC3339, head.Time)
		if err != nil {
			return Event{}, Errorf(ReasonBadMessage, "event time %q is not RFC 3339", clip(head.Time, 40))
		}
		e.Time = t
	}
	if e.Data = head.DataBase64; head.Data != nil {
		e.Data = []byte(head.Data)
	}
	for s := range strings.FieldsSeq(head.DSBlobs) {
		d, err := ParseDigest(s)
		if err != nil {
			return Event{}, err
		}
		e.Blobs = append(e.Blobs, d)
	}
	e.Dropped, _ = strconv.ParseUint(head.DSDropped, 10, 64)
	for k, raw := range all {
		if cloudEventNames[k] || strings.HasPrefix(k, "ds") {
			continue
		}
		var v string
		if json.Unmarshal(raw, &v) == nil {
			if e.Attributes == nil {
				e.Attributes = make(map[string]string)
			}
			e.Attributes[k] = v
		}
	}
	return e, CheckEvent(&e)
}

// traceOf is the trace id of a traceparent, "00-TRACE-SPAN-FLAGS" in lower-case hex; empty for what is none, which
// W3C Trace Context wants to be ignored.
func traceOf(parent string) string {
	const trace, span = "00000000000000000000000000000000", "0000000000000000"
	p := strings.Split(parent, "-")
	if len(p) != 4 || p[0] != "00" || len(p[1]) != len(trace) || len(p[2]) != len(span) || len(p[3]) != 2 ||
		strings.Trim(p[1]+p[2]+p[3], "0123456789abcdef") != "" || p[1] == trace || p[2] == span {
		return ""
	}
	return p[1]
}

// Scrubbed is e without secrets: scrub takes them out of the data and the attributes, and leaves its argument
// alone; nil does nothing. It comes before CloudEvent: what is no JSON then becomes base64.
func (e *Event) Scrubbed(scrub func(text []byte) []byte) *Event {
	if scrub == nil {
		return e
	}
	c := *e
	c.Data = scrub(e.Data)
	c.ContentType = string(scrub([]byte(e.ContentType)))
	if e.Attributes != nil {
		c.Attributes = make(map[string]string, len(e.Attributes))
	}
	for k, v := range e.Attributes {
		c.Attributes[k] = string(scrub([]byte(v)))
	}
	return &c
}

var cloudEventNames = map[string]bool{
	"specversion": true, "id": true, "type": true, "source": true, "time": true, "datacontenttype": true, "dataschema": true,
	"subject": true, "data": true, "data_base64": true, "traceparent": true, "tracestate": true,
}

// CheckEvent checks what a publisher may set: topic, sizes, attribute names, UTF-8 (events-state.md section
// 1). The error has reason BAD_TOPIC, BAD_MESSAGE or TOO_LARGE.
func CheckEvent(e *Event) error {
	if err := CheckTopic(e.Topic); err != nil {
		return err
	}
	if len(e.ContentType) > MaxContentType || !utf8.ValidString(e.ContentType) {
		return Errorf(ReasonBadMessage, "event content type is not UTF-8 or longer than %d bytes", MaxContentType)
	}
	if len(e.Attributes) > MaxAttributes {
		return Errorf(ReasonBadMessage, "event has %d attributes, at most %d", len(e.Attributes), MaxAttributes)
	}
	size := len(e.Data)
	for k, v := range e.Attributes {
		if k == "" || len(k) > 20 || strings.Trim(k, "abcdefghijklmnopqrstuvwxyz0123456789") != "" || cloudEventNames[k] || strings.HasPrefix(k, "ds") {
			return Errorf(ReasonBadMessage, "event attribute %q is not [a-z0-9]{1,20}, or its name is taken", clip(k, 40))
		}
		if len(v) > MaxAttribute || !utf8.ValidString(v) {
			return Errorf(ReasonBadMessage, "event attribute %q is not UTF-8 or longer than %d bytes", k, MaxAttribute)
		}
		size += len(k) + len(v)
	}
	if size > MaxEventData {
		return Errorf(ReasonTooLarge, "event has %d bytes of data and attributes, at most %d", size, MaxEventData)
	}
	return nil
}
