package yamlfile_test

import (
	"errors"
	"testing"

	"github.com/delivery-station/ds/internal/yamlfile"
)

func TestListItems(t *testing.T) {
	add := yamlfile.Ordered{{Key: "k", Value: "v"}}
	for name, c := range map[string]struct{ in, appended, removed string }{
		"no key":    {"version: 1\n", "version: 1\nlist: [{k: v}]\n", "version: 1\n"},
		"empty":     {"list: []\n", "list: [{k: v}]\n", "list: []\n"},
		"flow":      {"list: [a, b] # c\n", "list: [a, b, {k: v}] # c\n", "list: [b] # c\n"},
		"one":       {"list: [a]\n", "list: [a, {k: v}]\n", "list: []\n"},
		"block":     {"list:\n  - {a: b}  # first\n  # about the second\n  - {c: d}\nnext: 1\n", "list:\n  - {a: b}  # first\n  # about the second\n  - {c: d}\n  - {k: v}\nnext: 1\n", "list:\n  # about the second\n  - {c: d}\nnext: 1\n"},
		"no indent": {"list:\n- a\n- b", "list:\n- a\n- b\n- {k: v}", "list:\n- b"},
		"lines":     {"list:\n  - a: 1\n    b: 2\n  - c: 3\n", "list:\n  - a: 1\n    b: 2\n  - c: 3\n  - {k: v}\n", "list:\n  - c: 3\n"},
	} {
		got, err := yamlfile.Append("f", []byte(c.in), yamlfile.Limits{}, add, "list")
		if err != nil || string(got) != c.appended {
			t.Errorf("%s: append gives %q, %v", name, got, err)
		}
		got, err = yamlfile.RemoveItem("f", []byte(c.in), yamlfile.Limits{}, 0, "list")
		if err != nil || string(got) != c.removed {
			t.Errorf("%s: remove gives %q, %v", name, got, err)
		}
	}
	if got, err := yamlfile.RemoveItem("f", []byte("list: [a, b]\n"), yamlfile.Limits{}, 1, "list"); err != nil || string(got) != "list: [a]\n" {
		t.Errorf("last: %q, %v", got, err)
	}
	for _, in := range []string{"list: 1\n", "x: &a [1, 2]\nlist: *a\n", "list:\n- |\n  text\n- a: |\n    b\n"} {
		if got, err := yamlfile.Append("f", []byte(in), yamlfile.Limits{}, add, "list"); !errors.Is(err, yamlfile.ErrManual) {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}
