package hostabi

import (
	"errors"
	"fmt"
	"strings"
)

// Error is the one error that reaches a user or a guest. Err is the cause for errors.Is and logs; it never
// leaves the host. Fix is a command to paste. Errors compare by Reason with errors.Is.
type Error struct {
	Code   Code
	Reason Reason
	Op     string            // the noun the message is about: a reference, path or plugin; may be empty
	Msg    string            // one fact, lower case, no final period
	Fix    string            // command that repairs it, or empty
	Meta   map[string]string // capability, resource, plugin, topic, revision … as sent in google.rpc.ErrorInfo
	Err    error             // cause
}

// Errorf makes an Error of the reason's code. %w in the format sets Err.
func Errorf(r Reason, format string, a ...any) *Error {
	err := fmt.Errorf(format, a...)
	return &Error{Code: r.Info().Code, Reason: r, Msg: err.Error(), Err: errors.Unwrap(err)}
}

// WithFix returns e after setting the command that repairs it.
func (e *Error) WithFix(format string, a ...any) *Error {
	e.Fix = fmt.Sprintf(format, a...)
	return e
}

// WithMeta returns e after setting one metadata value.
func (e *Error) WithMeta(key, value string) *Error {
	if e.Meta == nil {
		e.Meta = make(map[string]string)
	}
	e.Meta[key] = value
	return e
}

func (e *Error) Error() string {
	if e.Op == "" {
		return e.Msg
	}
	return e.Op + ": " + e.Msg
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is an *Error of the same Reason.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Reason == e.Reason
}

// Number is the DS number of e, 5999 for a reason without one.
func (e *Error) Number() int { return e.Reason.Info().Number }

// AsError is err itself if it is or wraps an *Error, else an INTERNAL error with err as cause. nil gives nil.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Code: Internal, Reason: ReasonInternal, Msg: strings.ToValidUTF8(err.Error(), "\uFFFD"), Err: err}
}

// ReasonOf is the Reason of err, or "" when err neither is nor wraps an *Error.
func ReasonOf(err error) Reason {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reason
	}
	return ""
}
