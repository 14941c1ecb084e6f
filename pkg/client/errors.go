package client

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/delivery-station/ds/hostabi"
)

// Errors of host calls are *Error; these match them with errors.Is.
var (
	ErrNoHost      error = &class{text: "not started by ds"}
	ErrDenied      error = &class{text: "denied"}
	ErrNotFound    error = &class{text: "not found"}
	ErrExists      error = &class{text: "exists"}
	ErrConflict    error = &class{text: "conflict"}
	ErrInvalid     error = &class{text: "invalid"}
	ErrAuth        error = &class{text: "not authenticated"}
	ErrUnavailable error = &class{text: "unavailable"}
	ErrOffline     error = &class{text: "offline", wider: ErrUnavailable}
	ErrQuota       error = &class{text: "quota exceeded"}
	ErrDigest      error = &class{text: "content does not match its digest"}
	ErrUnsupported error = &class{text: "not supported"}
)

// class is a class of errors; wider is one that holds it too.
type class struct {
	text  string
	wider error
}

func (c *class) Error() string { return c.text }
func (c *class) Unwrap() error { return c.wider }

// classify makes err, which may be nil, an *Error that the variables above match. It never changes an error
// that somebody else may hold.
func classify(err error) error {
	if err == nil {
		return nil
	}
	e := hostabi.AsError(err)
	if e.Err != nil {
		if _, done := errors.AsType[*class](e); done {
			return e
		}
	}
	c := classOf(e)
	if c == nil {
		return e
	}
	out := *e
	out.Err = c
	if e.Err != nil {
		out.Err = errors.Join(c, e.Err)
	}
	return &out
}

func classOf(e *Error) error {
	switch e.Reason {
	case hostabi.ReasonOffline:
		return ErrOffline
	case hostabi.ReasonForbidden:
		return ErrAuth
	case hostabi.ReasonGraphIncomplete:
		return ErrNotFound
	}
	switch e.Code {
	case hostabi.PermissionDenied:
		return ErrDenied
	case hostabi.NotFound:
		return ErrNotFound
	case hostabi.AlreadyExists:
		return ErrExists
	case hostabi.Aborted:
		return ErrConflict
	case hostabi.InvalidArgument, hostabi.OutOfRange:
		return ErrInvalid
	case hostabi.Unauthenticated:
		return ErrAuth
	case hostabi.Unavailable:
		return ErrUnavailable
	case hostabi.ResourceExhausted:
		return ErrQuota
	case hostabi.DataLoss:
		return ErrDigest
	case hostabi.Unimplemented:
		return ErrUnsupported
	}
	return nil
}

func noHost() error {
	e := hostabi.Errorf(hostabi.ReasonStartFailed, "this program was not started by ds, so there is no host to call")
	e.Err = ErrNoHost
	return e
}

// ExitError makes Main exit with Code. Returned by CallPlugin it says that the called plugin did. Err, if
// any, is printed.
type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string {
	if e.Err != nil {
		return e.Err.Error()
	}
	return "exit status " + strconv.Itoa(e.Code)
}

// Unwrap is Err.
func (e *ExitError) Unwrap() error { return e.Err }

// Usagef is the error of a wrong argument: DS1001, exit 2.
func Usagef(format string, a ...any) error {
	return classify(&Error{Code: hostabi.InvalidArgument, Reason: hostabi.ReasonUsage, Msg: fmt.Sprintf(format, a...)})
}

func isNoHost(err error) bool { return errors.Is(err, ErrNoHost) }
