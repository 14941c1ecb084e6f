// Package abi_test checks ds_v1.h, the C guests built with it and the SDKs of other languages.
package abi_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1"
)

const guests = "../../testdata/guests/c"

func header(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("ds_v1.h")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestPrebuilt fails when a source of the committed modules changed without `make guests`.
func TestPrebuilt(t *testing.T) {
	lists, err := filepath.Glob("../../testdata/guests/*/sources.sha256")
	if err != nil || len(lists) != 3 { // c, rust, assemblyscript
		t.Fatalf("lists of sources: %v %v", lists, err)
	}
	for _, list := range lists {
		dir := filepath.Dir(list)
		named := checkSources(t, list)
		for _, ext := range []string{"c", "rs", "ts"} {
			sources, err := filepath.Glob(filepath.Join(dir, "*."+ext))
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range sources {
				if !named[filepath.Base(s)] {
					t.Errorf("%s is not in %s", s, list)
				}
			}
		}
		if !named["ds_v1.h"] && !named["ds.rs"] && !named["ds.ts"] {
			t.Errorf("%s names no SDK", list)
		}
	}
}

// checkSources compares the files that list names with their digests.
func checkSources(t *testing.T, list string) (named map[string]bool) {
	t.Helper()
	text, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	named = make(map[string]bool)
	for line := range strings.Lines(string(text)) {
		want, name, ok := strings.Cut(strings.TrimSpace(line), "  ")
		if !ok {
			t.Fatalf("%s: %q is not a digest and a file", list, line)
		}
		b, err := os.ReadFile(filepath.Join(filepath.Dir(list), filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")))
		if hex.EncodeToString(sum[:]) != want {
			t.Errorf("%s: %s changed: run make guests", list, name)
		}
		named[filepath.Base(name)] = true
	}
	return named
}

// TestThin: an SDK is something that an author copies and reads.
func TestThin(t *testing.T) {
	for _, name := range []string{"ds.py", "ds.js", "ds.rs", "ds.ts"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(b, []byte("\n")); n > 300 {
			t.Errorf("%s has %d lines", name, n)
		}
	}
}

// TestNames compares the names of the header with the schema, independently of the generator.
func TestNames(t *testing.T) {
	text := header(t)
	numbers := make(map[string]int)
	for _, m := range regexp.MustCompile(`(?m)^\t(DS_[A-Z0-9_]+) = (\d+),`).FindAllStringSubmatch(text, -1) {
		numbers[m[1]], _ = strconv.Atoi(m[2])
	}
	upper := func(name protoreflect.Name) string {
		var b strings.Builder
		for i, c := range string(name) {
			if i > 0 && unicode.IsUpper(c) {
				b.WriteByte('_')
			}
			b.WriteRune(unicode.ToUpper(c))
		}
		return b.String()
	}
	messages := hostv1.File_host_proto.Messages()
	for i := range messages.Len() {
		for j := range messages.Get(i).Fields().Len() {
			f := messages.Get(i).Fields().Get(j)
			name := "DS_" + upper(messages.Get(i).Name()) + "_" + upper(f.Name())
			if numbers[name] != int(f.Number()) {
				t.Errorf("%s is %d, the schema says %d", name, numbers[name], f.Number())
			}
		}
	}
	services := hostv1.File_host_proto.Services()
	for i := range services.Len() {
		for j := range services.Get(i).Methods().Len() {
			m := services.Get(i).Methods().Get(j)
			full := fmt.Sprintf("/%s/%s", services.Get(i).FullName(), m.Name())
			if want := fmt.Sprintf("DS_METHOD_%s_%s %q", upper(services.Get(i).Name()), upper(m.Name()), full); !strings.Contains(text, want+" ") {
				t.Errorf("%s is missing", want)
			}
		}
	}
	for c := hostabi.OK; c <= hostabi.Unauthenticated; c++ {
		if n, ok := numbers["DS_"+c.String()]; !ok || n != int(c) {
			t.Errorf("code DS_%s is %d, want %d", c, n, c)
		}
	}
}

// TestImports pins the functions of host-abi.md section 6 with their parameter counts.
func TestImports(t *testing.T) {
	want := map[string]int{"call": 6, "take": 2, "open": 4, "send": 3, "recv": 3, "poll": 1, "read": 3, "write": 3, "close": 2}
	for _, m := range regexp.MustCompile(`(?m)^DS_IMPORT\("(\w+)"\) uint64_t ds_(\w+)\((.*)\);$`).FindAllStringSubmatch(header(t), -1) {
		if n := len(strings.Split(m[3], ",")); m[1] != m[2] || n != want[m[1]] {
			t.Errorf("import %s: %s, want %d parameters", m[1], m[0], want[m[1]])
		}
		delete(want, m[1])
	}
	if len(want) > 0 {
		t.Errorf("imports missing: %v", want)
	}
}
