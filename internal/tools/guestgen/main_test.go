package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCommitted: the committed outputs are what the committed schema gives, byte for byte.
func TestCommitted(t *testing.T) {
	const hostabi = "../../../hostabi"
	dir := t.TempDir()
	for _, d := range []string{"hostv1", "hostv1lite", "abi"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	schema, err := os.ReadFile(filepath.Join(hostabi, "hostv1/host.proto"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "hostv1/host.proto"), schema, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"hostv1lite/messages_gen.go", "hostv1lite/methods_gen.go", "abi/ds_v1.h", "abi/ds.rs", "abi/ds.ts"} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join(hostabi, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is stale: run make generate", name)
		}
	}
}

// TestRefused: a schema that the outputs cannot express fails here and names the place.
func TestRefused(t *testing.T) {
	for name, c := range map[string]struct{ schema, want string }{
		"enum":           {"enum E { A = 0; }", "enums"},
		"inner enum":     {"message M { enum E { A = 0; } E e = 1; }", "M: enums"},
		"inner message":  {"message M { message N {} N n = 1; }", "M.N: nested messages"},
		"float":          {"message M { double d = 1; }", "M.d: kind double"},
		"fixed":          {"message M { fixed64 d = 1; }", "M.d: kind fixed64"},
		"zigzag":         {"message M { sint32 d = 1; }", "M.d: kind sint32"},
		"number list":    {"message M { repeated uint32 d = 1; }", "M.d: only strings and messages"},
		"number map":     {"message M { map<string, int32> d = 1; }", "M.d: only map<string, string>"},
		"string oneof":   {"message M { oneof o { string s = 1; } }", "M.s: only bytes and messages"},
		"optional text":  {"message M { optional string s = 1; }", "M.s: only numbers"},
		"optional bool":  {"message M { optional bool s = 1; }", "M.s: only numbers"},
		"unknown import": {`import "google/protobuf/any.proto";`, "any.proto"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "hostv1"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "hostv1/host.proto"), []byte("syntax = \"proto3\"; package p; "+c.schema), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := run(t.Context(), dir); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want it to say %q", err, c.want)
			}
		})
	}
}

// TestUnknownName: an SDK that names what the schema does not have is not written.
func TestUnknownName(t *testing.T) {
	f, err := schema(t.Context(), "../../../hostabi")
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{"@Nothing.key@", "@Meta.key@", "@GetConfigRequest.no@", "@Meta/Nothing@", "@Nothing/Get@"} {
		if out, err := expand("x " + token)(f); err == nil || !strings.Contains(err.Error(), strings.Trim(token, "@")) {
			t.Errorf("%s: %q, %v", token, out, err)
		}
	}
	out, err := expand("@GetConfigRequest.key@ @Config/Get@ @external(a@b")(f)
	if want := "1 /ds.host.v1.Config/Get @external(a@b"; err != nil || string(out) != want {
		t.Errorf("%q %v", out, err)
	}
}
