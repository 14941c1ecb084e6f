package hostabi

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestReasonTable holds every row to the rules of the table.
func TestReasonTable(t *testing.T) {
	word := regexp.MustCompile(`^[A-Z][A-Z0-9_]+$`)
	seen := make(map[Reason]bool)
	last := 0
	for _, r := range Reasons() {
		if seen[r.Reason] {
			t.Errorf("%s stands twice in the table", r.Reason)
		}
		seen[r.Reason] = true
		if !word.MatchString(string(r.Reason)) {
			t.Errorf("%q is not UPPER_SNAKE", r.Reason)
		}
		if r.Number < 1000 || r.Number > 5999 || r.Number < last {
			t.Errorf("%s: number %d is out of range or order", r.Reason, r.Number)
		}
		last = r.Number
		if r.Code == OK || int(r.Code) >= len(codeNames) {
			t.Errorf("%s: code %d is no error", r.Reason, r.Code)
		}
		if r.Exit <= 0 || r.Exit > 255 || r.RunExit < 124 || r.RunExit > 255 {
			t.Errorf("%s: exits %d, %d", r.Reason, r.Exit, r.RunExit)
		}
		if r.Text == "" || strings.HasSuffix(r.Text, ".") {
			t.Errorf("%s: text %q", r.Reason, r.Text)
		}
		if r.Reason.Info() != r {
			t.Errorf("%s: Info is another row", r.Reason)
		}
	}
	for _, name := range declaredReasons(t) {
		if !seen[name] {
			t.Errorf("%s is declared but has no row", name)
		}
		delete(seen, name)
	}
	for name := range seen {
		t.Errorf("%s has a row but no constant", name)
	}
}

// declaredReasons are the values of the Reason constants in reason.go.
func declaredReasons(t *testing.T) (out []Reason) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "reason.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 || !strings.HasPrefix(spec.Names[0].Name, "Reason") {
			return true
		}
		if lit, ok := spec.Values[0].(*ast.BasicLit); ok {
			v, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, Reason(v))
		}
		return true
	})
	if len(out) == 0 {
		t.Fatal("no constants found")
	}
	return out
}

// TestReasonOnWire pins the table of host-abi.md section 12.
func TestReasonOnWire(t *testing.T) {
	for code, list := range map[Code]string{
		Cancelled: "INTERRUPTED", DeadlineExceeded: "TIMEOUT", Aborted: "STATE_CONFLICT",
		InvalidArgument:    "USAGE REF CONFIG_KEY BAD_FRAME BAD_POINTER BAD_HANDLE BAD_DIGEST BAD_TOPIC BAD_KEY BAD_URL BAD_MESSAGE",
		NotFound:           "REF_NOT_FOUND PLUGIN_NOT_FOUND KEY_NOT_FOUND NOT_CACHED",
		AlreadyExists:      "EXISTS",
		PermissionDenied:   "CAPABILITY_DENIED POLICY_DENIED REDIRECT_DENIED ADDRESS_DENIED COMPLETION FORBIDDEN",
		ResourceExhausted:  "TOO_LARGE TOO_MANY CREDIT RATE QUOTA NO_SPACE CALL_DEPTH MEMORY_LIMIT",
		FailedPrecondition: "NO_TERMINAL CALL_CYCLE PLUGIN_INACTIVE START_FAILED GRAPH_INCOMPLETE READ_ONLY",
		Unimplemented:      "UNKNOWN_METHOD", Internal: "INTERNAL",
		Unavailable: "OFFLINE REGISTRY_UNAVAILABLE NATS_UNAVAILABLE",
		DataLoss:    "DIGEST_MISMATCH CACHE_CORRUPT STATE_CORRUPT", Unauthenticated: "AUTH_REQUIRED",
	} {
		for name := range strings.FieldsSeq(list) {
			if got := Reason(name).Info(); got.Code != code || got.Number == 5999 && name != "INTERNAL" {
				t.Errorf("%s has code %v and number %d, want code %v and a row", name, got.Code, got.Number, code)
			}
		}
	}
}

func TestUnknownReason(t *testing.T) {
	got := Reason("NOT_INVENTED_YET").Info()
	if got.Reason != "NOT_INVENTED_YET" || got.Code != Internal || got.Number != 5999 {
		t.Errorf("got %+v", got)
	}
	Reasons()[0].Text = "changed"
	if reasons[0].Text == "changed" {
		t.Error("Reasons must be a copy")
	}
}

func TestCodeString(t *testing.T) {
	for c, want := range map[Code]string{OK: "OK", PermissionDenied: "PERMISSION_DENIED", Unauthenticated: "UNAUTHENTICATED", 17: "17"} {
		if c.String() != want {
			t.Errorf("%d: %s, want %s", uint16(c), c, want)
		}
	}
}
