package scrub

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
)

// TestEveryFormAtEverySplit writes a secret in each form, cut at each place.
func TestEveryFormAtEverySplit(t *testing.T) {
	const secret = `p/4s+w"ö rd&\x`
	var s Scrubber
	s.Add(secret, "short", "another-one")
	jsonText, _ := json.Marshal(secret)
	nested, _ := json.Marshal(fmt.Sprintf("%q", secret))
	texts := map[string]string{
		"raw": secret, "json": string(jsonText), "quoted": fmt.Sprintf("%q", secret), "ascii": fmt.Sprintf("%+q", secret), "quoted in json": string(nested),
		"query": url.QueryEscape(secret), "path": url.PathEscape(secret), "user": url.UserPassword("u", secret).String(), "lower": strings.ToLower(url.QueryEscape(secret)),
	}
	for before := range 4 {
		plain := []byte(strings.Repeat("u", before) + secret + "after")
		texts[fmt.Sprint("base64 ", before)] = base64.StdEncoding.EncodeToString(plain)
		texts[fmt.Sprint("base64url ", before)] = base64.URLEncoding.EncodeToString(plain)
	}
	for name, text := range texts {
		whole := s.String("a " + text + " z")
		if !strings.Contains(whole, mask) || !strings.HasPrefix(whole, "a ") || !strings.HasSuffix(whole, " z") {
			t.Errorf("%s: %q became %q", name, text, whole)
		}
		for _, f := range formsOf(secret) {
			if strings.Contains(whole, string(f)) {
				t.Errorf("%s: %q is left in %q", name, f, whole)
			}
		}
		for cut := range len(text) {
			var out bytes.Buffer
			w := s.Writer(&out)
			for _, piece := range []string{"a " + text[:cut], text[cut:], " z"} {
				if n, err := w.Write([]byte(piece)); n != len(piece) || err != nil {
					t.Fatal(n, err)
				}
			}
			if err := w.Close(); err != nil || out.String() != whole {
				t.Fatalf("%s cut at %d: %q, want %q (%v)", name, cut, out.String(), whole, err)
			}
		}
	}
}

func TestOtherTextIsKept(t *testing.T) {
	var s Scrubber
	s.Add("short")
	var out bytes.Buffer
	w := s.Writer(&out)
	fmt.Fprint(w, "short")
	s.Add("s3cret-value")
	fmt.Fprint(w, " is kept, s3cret")
	if got := out.String(); got != "short is kept, " {
		t.Errorf("before Close: %q", got)
	}
	fmt.Fprint(w, "ion too")
	if err := w.Close(); err != nil || out.String() != "short is kept, s3cretion too" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

func FuzzWriter(f *testing.F) {
	f.Add("s3cret-value", "before s3cret-value after", 9)
	f.Fuzz(func(t *testing.T, secret, text string, cut int) {
		var s Scrubber
		s.Add(secret)
		var out bytes.Buffer
		w := s.Writer(&out)
		cut = max(0, min(cut, len(text)))
		_, _ = w.Write([]byte(text[:cut]))
		_, _ = w.Write([]byte(text[cut:]))
		_ = w.Close()
		if len(secret) >= minLength && !strings.Contains(mask, secret) && strings.Contains(text, secret) && out.String() == text && secret != mask {
			t.Errorf("%q in %q was kept", secret, text)
		}
	})
}
