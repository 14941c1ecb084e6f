package hosttest_test

import (
	"context"
	"net"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/frame"
	"github.com/delivery-station/ds/hostabi/host"
	"github.com/delivery-station/ds/hostabi/hosttest"
	"github.com/delivery-station/ds/hostabi/hosttest/injson"
	"github.com/delivery-station/ds/hostabi/hostv1"
)

// TestFramesJSON runs the cases over frames in JSON.
func TestFramesJSON(t *testing.T) {
	t.Parallel()
	hosttest.Run(t, hosttest.Connected("frames, JSON", func(t testing.TB, s hostabi.Session) hostabi.Session {
		return injson.Over(overFrames(t, s), hostv1.File_host_proto)
	}), owners)
}

// overFrames connects both ends of the frame carrier.
func overFrames(t testing.TB, s hostabi.Session) hostabi.Session {
	s.(*host.Session).SetRunDir(t.TempDir(), false)
	ours, theirs := net.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- frame.Serve(ctx, ours, s) }()
	conn := frame.NewConn(theirs)
	t.Cleanup(func() { _ = conn.Close(); cancel(); <-served })
	return conn
}
