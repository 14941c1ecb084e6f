package state

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/delivery-station/ds/hostabi"
)

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	s := Open(Options{Dir: dir})
	if found, err := s.Check(t.Context(), true); len(found) != 0 || err != nil {
		t.Errorf("Check of nothing = %v, %v", found, err)
	}
	put(t, s, "k", "v", nil)
	if err := errOf(s.Put(t.Context(), "other", hostabi.StateEntry{Key: "k"}, nil, 0)); err != nil {
		t.Fatal(err)
	}
	if found, err := s.Check(t.Context(), true); len(found) != 0 || err != nil {
		t.Errorf("Check of whole files = %v, %v", found, err)
	}
	damaged := filepath.Join(dir, "kv", "s3.json")
	left := filepath.Join(dir, "kv", ".other.json.0123456789abcdef.tmp")
	for _, name := range []string{damaged, left} {
		if err := os.WriteFile(name, []byte(`{"version":1,`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found, err := s.Check(t.Context(), false)
	if err != nil || len(found) != 2 || found[0].Path != left || found[1].Path != damaged || found[1].Fix == "" {
		t.Fatalf("Check = %+v, %v", found, err)
	}
	if _, err := os.Stat(left); err != nil {
		t.Error("a check without repair changed something")
	}
	if found, err = s.Check(t.Context(), true); err != nil || len(found) != 2 || found[0].Fix != "" || !strings.HasSuffix(found[1].What, "(repaired)") {
		t.Fatalf("Check = %+v, %v", found, err)
	}
	if found, err := s.Check(t.Context(), true); len(found) != 0 || err != nil {
		t.Errorf("Check after a repair = %v, %v", found, err)
	}
	put(t, s, "k", "afresh", nil)
	aside, _ := filepath.Glob(damaged + ".corrupt-*")
	if len(aside) != 1 {
		t.Fatalf("moved aside: %v", aside)
	}
	if b, err := os.ReadFile(aside[0]); err != nil || string(b) != `{"version":1,` {
		t.Errorf("the damaged file became %q, %v", b, err)
	}
	if _, err := s.Get(t.Context(), "other", "k"); err != nil {
		t.Errorf("another owner suffers: %v", err)
	}
}
