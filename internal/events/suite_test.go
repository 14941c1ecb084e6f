package events

import (
	"testing"
	"time"

	"github.com/delivery-station/ds/internal/bustest"
)

func TestSuite(t *testing.T) {
	bustest.RunEvents(t, func(_ *testing.T, clock func() time.Time) bustest.Bus { return New(Options{Clock: clock}) })
}
