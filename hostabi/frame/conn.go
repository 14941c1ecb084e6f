package frame

import (
	"context"
	"io"

	"github.com/delivery-station/ds/hostabi"
)

// Conn is the guest end of a connection: a hostabi.Session whose calls travel as frames.
type Conn struct{ rw io.ReadWriteCloser }

// NewConn makes the guest end of conn. It writes and reads nothing before the first call.
func NewConn(conn io.ReadWriteCloser) *Conn { return &Conn{rw: conn} }

var _ hostabi.Session = (*Conn)(nil)

// Invoke runs a unary method.
func (c *Conn) Invoke(ctx context.Context, call hostabi.Call) ([]byte, error) {
	return nil, hostabi.Errorf(hostabi.ReasonInternal, "not built")
}

// Stream starts a streaming method.
func (c *Conn) Stream(ctx context.Context, method string, e hostabi.Encoding) (hostabi.Stream, error) {
	return nil, hostabi.Errorf(hostabi.ReasonInternal, "not built")
}

// Handle is the descriptor that came with an opened blob.
func (c *Conn) Handle(id uint32) (io.ReadWriteCloser, error) {
	return nil, hostabi.Errorf(hostabi.ReasonInternal, "not built")
}

// Close ends all calls and closes the connection.
func (c *Conn) Close() error { return c.rw.Close() }
