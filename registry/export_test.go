package registry

import (
	"context"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

// SetClock replaces time in tests.
func (c *Client) SetClock(now func() time.Time, sleep func(context.Context, time.Duration) error) {
	c.now, c.sleep = now, sleep
}

// Inner functions that tests and fuzz targets call.
var (
	ParseRetryAfter   = parseRetryAfter
	ParseContentRange = parseContentRange
	Clean             = clean
	CheckRedirect     = checkRedirect
	MountLines        = mountLines
)

// EntrySources is what the entry of d in a tier lists; ok is false if text is not that entry.
func EntrySources(text []byte, d hostabi.Digest) (sources []string, ok bool) {
	e := parseEntry(text, d)
	if e == nil {
		return nil, false
	}
	return e.sources(), true
}
