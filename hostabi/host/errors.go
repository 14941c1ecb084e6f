package host

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"unicode"
	"unicode/utf8"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

// asError maps what a handler returned to the error that the guest gets. What is no *hostabi.Error is a
// defect of the host: the cause stays here.
func (s *Session) asError(method string, err error) *hostabi.Error {
	if e, ok := errors.AsType[*hostabi.Error](err); ok {
		return e
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled) && s.expired():
		return hostabi.Errorf(hostabi.ReasonTimeout, "deadline exceeded")
	case errors.Is(err, context.Canceled):
		return hostabi.Errorf(hostabi.ReasonInterrupted, "call cancelled")
	}
	if st, ok := status.FromError(err); ok {
		switch st.Code() {
		case codes.Unimplemented: // of a generated UnimplementedXServer
			return unknownMethod(method)
		case codes.Canceled:
			return hostabi.Errorf(hostabi.ReasonInterrupted, "call cancelled")
		case codes.DeadlineExceeded:
			return hostabi.Errorf(hostabi.ReasonTimeout, "deadline exceeded")
		}
	}
	return s.traced(method, err)
}

func (s *Session) expired() bool { return errors.Is(s.ctx.Err(), context.DeadlineExceeded) }

// grpcError is e as gRPC carries it: the same Status bytes as on every other carrier.
func grpcError(e *hostabi.Error) error {
	var st spb.Status
	if err := proto.Unmarshal(e.AppendStatus(nil, hostabi.EncProto), &st); err != nil {
		return status.Error(codes.Code(e.Code), e.Error())
	}
	return status.FromProto(&st).Err()
}

// panicError is a panic of a goroutine that works for a handler.
type panicError struct {
	value any
	stack []byte
}

func (p *panicError) Error() string { return fmt.Sprintf("panic: %v\n%s", p.value, p.stack) }

// safely is f with a panic as error, for goroutines beside a handler: none may end ds.
func safely(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &panicError{p, debug.Stack()}
		}
	}()
	return f()
}

// runFailed is the error of a nested run without the stage, which the caller cannot act on.
func runFailed(err error) error {
	if e, ok := errors.AsType[*plugin.RunError](err); ok {
		return e.Err
	}
	return err
}

// clean makes text of a stranger fit for a log or an error: control, format and bidi characters and invalid
// UTF-8 become U+FFFD, line breaks and tabs spaces, and what is longer than limit bytes is cut with "…".
func clean(s string, limit int) string {
	if len(s) <= limit && strings.IndexFunc(s, unclean) < 0 && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			r = ' '
		case unclean(r):
			r = utf8.RuneError
		}
		if b.Len()+utf8.RuneLen(r) > limit {
			b.WriteRune('…')
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}

func unclean(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == utf8.RuneError
}
