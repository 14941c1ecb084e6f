// Package scrub keeps secrets out of what ds writes: logs, errors and text of servers. It replaces every known
// secret, in each form in which programs write text down, by ***. It is the last line: code does not print
// secrets, but servers and plugins may. Start with Scrubber.Add and Scrubber.Writer.
package scrub

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// minLength is the shortest secret that is looked for: shorter ones are in ordinary words.
const minLength = 6

const mask = "***"

// Scrubber knows secrets. The zero value knows none. It is safe for concurrent use.
type Scrubber struct {
	mu    sync.RWMutex
	known map[string]bool
	forms [][]byte // longest first, so that no part of one is replaced before the whole
}

// Add makes secrets known. What is shorter than 6 bytes is ignored.
func (s *Scrubber) Add(secrets ...string) {
	for _, secret := range secrets {
		if len(secret) < minLength || s.knows(secret) {
			continue
		}
		s.mu.Lock()
		if s.known == nil {
			s.known = make(map[string]bool)
		}
		s.known[secret] = true
		forms := append(slices.Clone(s.forms), formsOf(secret)...) // readers may hold the old list
		slices.SortFunc(forms, func(a, b []byte) int {
			if len(a) != len(b) {
				return len(b) - len(a)
			}
			return bytes.Compare(a, b)
		})
		s.forms = slices.CompactFunc(forms, bytes.Equal)
		s.mu.Unlock()
	}
}

func (s *Scrubber) knows(secret string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.known[secret]
}

func (s *Scrubber) list() [][]byte {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.forms
}

// Bytes is b without secrets; b itself if there are none in it.
func (s *Scrubber) Bytes(b []byte) []byte {
	for _, f := range s.list() {
		if bytes.Contains(b, f) {
			b = bytes.ReplaceAll(b, f, []byte(mask))
		}
	}
	return b
}

// String is t without secrets.
func (s *Scrubber) String(t string) string {
	if len(s.list()) == 0 {
		return t
	}
	return string(s.Bytes([]byte(t)))
}

// formsOf lists how a secret may be written: as it is, quoted, in URLs, and in base64 behind any number of
// other bytes.
func formsOf(secret string) [][]byte {
	texts := []string{
		secret, url.QueryEscape(secret), url.PathEscape(secret), strings.TrimPrefix(url.UserPassword("", secret).String(), ":"),
		unquoted(strconv.Quote(secret)), unquoted(strconv.QuoteToASCII(secret)), quotedJSON(secret, true), quotedJSON(secret, false),
	}
	for _, t := range texts[1:4] {
		texts = append(texts, lowerHex(t))
	}
	for shift := range 3 {
		texts = append(texts, shifted(base64.RawStdEncoding, secret, shift), shifted(base64.RawURLEncoding, secret, shift))
	}
	for _, t := range texts[4:8] { // a log record in JSON of a text that quotes
		texts = append(texts, quotedJSON(t, false), quotedJSON(t, true))
	}
	slices.Sort(texts)
	var out [][]byte
	for _, t := range slices.Compact(texts) {
		out = append(out, []byte(t))
	}
	return out
}

func unquoted(s string) string { return s[1 : len(s)-1] }

func quotedJSON(s string, html bool) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(html)
	_ = e.Encode(s) // a string always encodes
	return unquoted(strings.TrimSuffix(b.String(), "\n"))
}

// lowerHex is a percent-encoded text with small digits.
func lowerHex(s string) string {
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:i+3], bytes.ToLower(b[i+1:i+3]))
		}
	}
	return string(b)
}

// shifted is the part of an encoding that a secret decides alone when it stands shift bytes behind a group.
func shifted(e *base64.Encoding, secret string, shift int) string {
	b := append(make([]byte, shift, shift+len(secret)), secret...)
	b = b[:len(b)/3*3]
	return e.EncodeToString(b)[(shift*8+5)/6:]
}

// Writer scrubs what is written to w, also where a secret comes in several pieces: an end that may be the
// beginning of one is held back until the next Write or Close. Close does not close w.
func (s *Scrubber) Writer(w io.Writer) *Writer { return &Writer{s: s, w: w} }

// Writer is made by Scrubber.Writer. It is safe for concurrent use.
type Writer struct {
	s    *Scrubber
	w    io.Writer
	mu   sync.Mutex
	held []byte
}

// Write implements io.Writer.
func (w *Writer) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.s.list()) == 0 && len(w.held) == 0 {
		return w.w.Write(b)
	}
	text := w.s.Bytes(slices.Concat(w.held, b))
	keep := w.s.begun(text)
	w.held = slices.Clone(text[len(text)-keep:])
	if _, err := w.w.Write(text[:len(text)-keep]); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Close writes what is held back.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.held) == 0 {
		return nil
	}
	_, err := w.w.Write(w.held)
	w.held = nil
	return err
}

// begun is the length of the longest end of b that is the beginning of a form.
func (s *Scrubber) begun(b []byte) (longest int) {
	for _, f := range s.list() {
		for n := min(len(f)-1, len(b)); n > longest; n-- {
			if bytes.HasSuffix(b, f[:n]) {
				longest = n
				break
			}
		}
	}
	return longest
}
