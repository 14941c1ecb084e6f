package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/delivery-station/ds/hostabi"
)

// Error is the cause of every *hostabi.Error of this package. It holds no secret: URLs in Detail have lost
// user information and query.
type Error struct {
	Op         string // resolve, manifest, blob, push, tag, tags, referrers, attach, copy
	Host       string
	Repository string
	Status     int           // HTTP status, 0 when there was none
	RetryAfter time.Duration // as the registry asked
	Source     string        // of the credential that was used; empty = none
	Detail     string
	cause      error
}

func (e *Error) Error() string {
	s := e.Op
	if e.Host != "" {
		s += " " + e.Host + "/" + e.Repository
	}
	if e.Status != 0 {
		s += fmt.Sprintf(": status %d", e.Status)
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// Unwrap is the cause if it carries no text of strangers: a context or file error.
func (e *Error) Unwrap() error { return e.cause }

const maxDetail = 4 << 10

// errWait says that a registry asked for a longer pause than is allowed.
type errWait struct {
	status int
	after  time.Duration
}

func (e *errWait) Error() string { return "asked to wait " + e.after.String() }

// errShort says that a registry ended a body before its size, and why.
type errShort struct {
	have, want int64
	cause      error // nil = a clean end
}

func (e *errShort) Error() string {
	return fmt.Sprintf("body ended after %d of %d bytes", e.have, e.want)
}
func (e *errShort) Unwrap() error { return e.cause }

// errSize says that a body has not the size of its descriptor.
var errSize = errors.New("size differs from the descriptor")

// fail is failure with the end of ctx as the reason where that is why, however the layers below put it.
func fail(ctx context.Context, op string, ref Reference, s source, err error) error {
	if err != nil && ctx.Err() != nil && hostabi.ReasonOf(err) == "" {
		err = ctx.Err()
	}
	return failure(op, ref, s.source(), err)
}

// failure turns what went wrong with op into the *hostabi.Error of registry.md section 11. ref is what the
// user knows the content as.
func failure(op string, ref Reference, source string, err error) error {
	if err == nil {
		return nil
	}
	cause := &Error{Op: op, Host: ref.Host, Repository: ref.Repository, Source: source}
	e := &hostabi.Error{Op: ref.String(), Err: cause}
	set := func(r hostabi.Reason, format string, a ...any) error {
		e.Reason, e.Code, e.Msg = r, r.Info().Code, clean(fmt.Sprintf(format, a...))
		return e
	}
	if known, ok := errors.AsType[*hostabi.Error](err); ok {
		if _, done := errors.AsType[*Error](known.Err); done || known.Op != "" {
			return known
		}
		cause.cause, cause.Detail = known.Err, clean(known.Msg)
		e.Fix, e.Meta = known.Fix, known.Meta
		return set(known.Reason, "%s", known.Msg)
	}
	if s, ok := status(err); ok {
		cause.Status = s
		cause.Detail = serverText(err)
		return statusFailure(op, ref, source, cause, e, set)
	}
	cause.Detail = clean(detail(err))
	switch {
	case errors.Is(err, context.Canceled):
		cause.cause = context.Canceled
		return set(hostabi.ReasonInterrupted, "interrupted")
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return unauthenticated(ref, source, e, set)
	case errors.Is(err, errdef.ErrNotFound):
		cause.Status = http.StatusNotFound
		return set(hostabi.ReasonRefNotFound, "not found")
	}
	if w, ok := errors.AsType[*errWait](err); ok {
		cause.Status, cause.RetryAfter = w.status, w.after
		return set(hostabi.ReasonRateLimited, "%s asks to wait %s", ref.Host, w.after)
	}
	if p, ok := errors.AsType[*fs.PathError](err); ok && !errors.Is(err, errSize) {
		return pathFailure(p, cause, set)
	}
	switch {
	case errors.Is(err, errdef.ErrSizeExceedsLimit), errors.Is(err, errdef.ErrTooManyPages), errors.Is(err, errdef.ErrInvalidReference):
		return set(hostabi.ReasonBadAnswer, "bad answer: %s", cause.Detail)
	case errors.Is(err, content.ErrMismatchedDigest), errors.Is(err, content.ErrTrailingData),
		errors.Is(err, content.ErrInvalidDescriptorSize), errors.Is(err, errSize):
		return set(hostabi.ReasonDigestMismatch, "digest or size is not that of the descriptor: %s", cause.Detail)
	case isTLS(err):
		return set(hostabi.ReasonTLS, "TLS with %s failed: %s", ref.Host, cause.Detail)
	}
	if s, ok := errors.AsType[*errShort](err); ok && s.cause == nil {
		return set(hostabi.ReasonDigestMismatch, "%s", cause.Detail)
	}
	if err == context.DeadlineExceeded { //nolint:errorlint // set by fail; timeouts of net/http claim to be this error too
		cause.cause = context.DeadlineExceeded
		return set(hostabi.ReasonTimeout, "took too long")
	}
	if isNet(err) {
		return set(hostabi.ReasonRegistryUnavailable, "%s is unavailable: %s", ref.Host, cause.Detail)
	}
	return set(hostabi.ReasonBadAnswer, "bad answer: %s", cause.Detail)
}

type setter func(r hostabi.Reason, format string, a ...any) error

func statusFailure(op string, ref Reference, source string, cause *Error, e *hostabi.Error, set setter) error {
	text := cause.Detail
	if text == "" {
		text = strings.ToLower(http.StatusText(cause.Status))
	}
	pushing := op == "push" || op == "tag" || op == "attach" || op == "copy"
	switch s := cause.Status; {
	case s == http.StatusUnauthorized:
		return unauthenticated(ref, source, e, set)
	case s == http.StatusForbidden:
		if source == "" {
			return set(hostabi.ReasonForbidden, "%s forbids this without credentials: %s", ref.Host, text)
		}
		return set(hostabi.ReasonForbidden, "%s forbids this to the credentials of %s: %s", ref.Host, source, text)
	case s == http.StatusNotFound:
		return set(hostabi.ReasonRefNotFound, "not found: %s", text)
	case s == http.StatusTooManyRequests:
		return set(hostabi.ReasonRateLimited, "%s limits the rate of requests: %s", ref.Host, text)
	case s == http.StatusRequestTimeout || s >= 500:
		return set(hostabi.ReasonRegistryUnavailable, "%s is unavailable: status %d: %s", ref.Host, s, text)
	case pushing && slices.Contains([]int{400, 405, 409, 413, 422}, s):
		return set(hostabi.ReasonPushRefused, "%s refuses the push: %s", ref.Host, text)
	}
	return set(hostabi.ReasonBadAnswer, "bad answer: status %d: %s", cause.Status, text)
}

func unauthenticated(ref Reference, source string, e *hostabi.Error, set setter) error {
	e.Fix = "ds registry login " + ref.Host
	if source == "" {
		return set(hostabi.ReasonAuthRequired, "%s needs a login and there are no credentials for it", ref.Host)
	}
	return set(hostabi.ReasonAuthRequired, "%s does not accept the credentials of %s", ref.Host, source)
}

func pathFailure(p *fs.PathError, cause *Error, set setter) error {
	cause.cause = p
	switch {
	case errors.Is(p.Err, syscall.ENOSPC), errors.Is(p.Err, syscall.EDQUOT):
		return set(hostabi.ReasonNoSpace, "no space left on the disk")
	case errors.Is(p.Err, syscall.EROFS), errors.Is(p.Err, fs.ErrPermission):
		return set(hostabi.ReasonReadOnly, "%s", p.Error())
	case errors.Is(p.Err, fs.ErrNotExist):
		return set(hostabi.ReasonRefNotFound, "not found: %s", p.Error())
	}
	return set(hostabi.ReasonBadLayout, "%s", p.Error())
}

// status is the HTTP status in err, if a registry answered with one.
func status(err error) (int, bool) {
	if r, ok := errors.AsType[*errcode.ErrorResponse](err); ok {
		return r.StatusCode, true
	}
	return 0, false
}

// serverText is the registry's own words, made safe for a terminal.
func serverText(err error) string {
	r, ok := errors.AsType[*errcode.ErrorResponse](err)
	if !ok || len(r.Errors) == 0 {
		return ""
	}
	parts := make([]string, 0, len(r.Errors))
	for _, e := range r.Errors[:min(len(r.Errors), 4)] {
		e.Detail = nil
		parts = append(parts, e.Error())
	}
	return clean(strings.Join(parts, "; "))
}

// detail is the text of err without the URL of a request, which may hold a signed query.
func detail(err error) string {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if o, ok := errors.AsType[*net.OpError](err); ok && o.Err != nil {
		if o.Op == "dial" && o.Addr != nil {
			return "dial " + o.Addr.String() + ": " + o.Err.Error()
		}
		return o.Op + ": " + o.Err.Error()
	}
	return err.Error()
}

// clean is s without control characters, with URLs that lost user information and query, and not too long.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) || r == '\u2028' || r == '\u2029' || (r >= 0x202a && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	var out strings.Builder
	for {
		i := strings.Index(s, "://")
		if i < 0 {
			break
		}
		end := i + 3 + strings.IndexAny(s[i+3:]+" ", " \"'<>")
		u := s[i+3 : end]
		slash := strings.IndexAny(u+"/", "/?#")
		if at := strings.LastIndexByte(u[:slash], '@'); at >= 0 {
			u = u[at+1:]
		}
		if q := strings.IndexAny(u, "?#"); q >= 0 {
			u = u[:q]
		}
		out.WriteString(s[:i+3] + u)
		s = s[end:]
	}
	return clip(out.String()+s, maxDetail)
}

func isTLS(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return true
	}
	// net/http has no type for it; the text is stable since Go 1.8 and only chooses a number here.
	return strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

func isNet(err error) bool {
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	if _, ok := errors.AsType[*errShort](err); ok {
		return true
	}
	if _, ok := errors.AsType[*json.SyntaxError](err); ok {
		return false
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, errIdle)
}

// errIdle says that a body did not move for too long.
var errIdle = errors.New("no data for too long")
