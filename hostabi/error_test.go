package hostabi

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"testing"
	"unicode/utf8"
)

func TestErrorf(t *testing.T) {
	e := Errorf(ReasonNoSpace, "cache is full: %w", fs.ErrPermission)
	if e.Code != ResourceExhausted || e.Reason != ReasonNoSpace || e.Number() != 2102 {
		t.Errorf("code %v, reason %s, number %d do not fit the table", e.Code, e.Reason, e.Number())
	}
	if e.Error() != "cache is full: permission denied" || !errors.Is(e, fs.ErrPermission) {
		t.Errorf("message %q must hold the cause, errors.Is must find it", e.Error())
	}
	if e := Errorf(ReasonUsage, "no cause: %v", io.EOF); errors.Unwrap(e) != nil {
		t.Error("an error under another verb than the wrapping one became the cause")
	}
	if got := (&Error{Op: "porter", Msg: "not found"}).Error(); got != "porter: not found" {
		t.Errorf("with Op: %q", got)
	}
}

func TestErrorFixAndMeta(t *testing.T) {
	e := Errorf(ReasonCapabilityDenied, "x").WithFix("ds plugin grant %s", "s3").WithMeta("plugin", "s3").WithMeta("capability", "net.http")
	if e.Fix != "ds plugin grant s3" || len(e.Meta) != 2 || e.Meta["plugin"] != "s3" {
		t.Errorf("got %+v", e)
	}
}

// TestErrorIs: errors compare by reason and nothing else.
func TestErrorIs(t *testing.T) {
	e := Errorf(ReasonNotCached, "one")
	wrapped := fmt.Errorf("opening: %w", e)
	for name, c := range map[string]struct {
		err, target error
		want        bool
	}{
		"same reason, other text": {e, Errorf(ReasonNotCached, "two"), true},
		"same code and number":    {e, Errorf(ReasonKeyNotFound, "one"), false},
		"wrapped":                 {wrapped, &Error{Reason: ReasonNotCached}, true},
		"foreign target":          {e, io.EOF, false},
		"foreign error":           {io.EOF, e, false},
	} {
		if got := errors.Is(c.err, c.target); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if ReasonOf(wrapped) != ReasonNotCached || ReasonOf(io.EOF) != "" || ReasonOf(nil) != "" {
		t.Error("ReasonOf looks through wrapping and knows nothing else")
	}
}

func TestAsError(t *testing.T) {
	e := Errorf(ReasonExists, "x")
	if AsError(fmt.Errorf("outer: %w", e)) != e {
		t.Error("a wrapped *Error must come back itself")
	}
	if AsError(nil) != nil {
		t.Error("nil must stay nil")
	}
	foreign := errors.New("bad \xff")
	got := AsError(foreign)
	if got.Code != Internal || got.Reason != ReasonInternal || !errors.Is(got, foreign) || !utf8.ValidString(got.Msg) {
		t.Errorf("foreign error became %+v", got)
	}
}
