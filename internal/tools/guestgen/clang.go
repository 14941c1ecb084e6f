package main

import (
	"bytes"
	_ "embed" // the part of ds_v1.h that does not depend on the schema
	"fmt"
	"strings"
	"unicode"

	"google.golang.org/protobuf/reflect/protoreflect"
)

//go:embed ds_v1.h.in
var cHeader string

// cNames writes ds_v1.h: the embedded part, then the names of the schema.
func cNames(f protoreflect.FileDescriptor) ([]byte, error) {
	var w bytes.Buffer
	w.WriteString(cHeader)
	for full, m := range methods(f) {
		fmt.Fprintf(&w, "#define DS_METHOD_%s_%s %q // %s\n", upper(m.Parent().Name()), upper(m.Name()), full, signature(m))
	}
	seen := make(map[string]bool)
	for m := range messages(f) {
		if m.Fields().Len() == 0 {
			continue
		}
		fmt.Fprintf(&w, "\n// %s\nenum {\n", m.Name())
		for f := range fields(m) {
			name := "DS_" + upper(m.Name()) + "_" + upper(f.Name())
			if seen[name] {
				return nil, fmt.Errorf("%s: the C name %s is taken", f.FullName(), name)
			}
			seen[name] = true
			fmt.Fprintf(&w, "\t%s = %d, // %s\n", name, f.Number(), cType(f))
		}
		w.WriteString("};\n")
	}
	w.WriteString("\n#ifdef __cplusplus\n}\n#endif\n\n#endif\n")
	return w.Bytes(), nil
}

// cType is the type of f as the schema writes it, with its remark.
func cType(f protoreflect.FieldDescriptor) string {
	t := f.Kind().String()
	switch {
	case f.IsMap():
		t = "map<string, string>"
	case f.Message() != nil:
		t = string(f.Message().Name())
	}
	switch {
	case f.IsList():
		t = "repeated " + t
	case f.HasOptionalKeyword():
		t = "optional " + t
	case inOneof(f):
		t = "oneof " + t
	}
	if text := remark(f); text != "" {
		t += ": " + text
	}
	return t
}

// upper is name in UPPER_SNAKE case.
func upper(name protoreflect.Name) string {
	var b strings.Builder
	for i, c := range string(name) {
		if i > 0 && unicode.IsUpper(c) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToUpper(c))
	}
	return b.String()
}
