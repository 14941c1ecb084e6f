package frame

import (
	"context"
	"io"

	"github.com/delivery-station/ds/hostabi"
)

// Serve answers the calls of one guest on conn with s until the guest closes its end, ctx ends or the guest
// breaks the protocol. It closes conn, not s, and returns only when every goroutine it started is gone.
func Serve(ctx context.Context, conn io.ReadWriteCloser, s hostabi.Session) error {
	return hostabi.Errorf(hostabi.ReasonInternal, "not built")
}
