package registry

import (
	"context"
	"time"
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
