package main

import (
	"cmp"
	"iter"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// scalar says how one kind looks in the outputs: its Go type and the stem of its functions in wire.go.
type scalar struct{ goType, stem string }

var scalars = map[protoreflect.Kind]scalar{
	protoreflect.StringKind: {"string", "String"},
	protoreflect.BytesKind:  {"[]byte", "Bytes"},
	protoreflect.BoolKind:   {"bool", "Bool"},
	protoreflect.Int32Kind:  {"int32", "Int32"},
	protoreflect.Int64Kind:  {"int64", "Int64"},
	protoreflect.Uint32Kind: {"uint32", "Uint32"},
	protoreflect.Uint64Kind: {"uint64", "Uint64"},
}

// number reports whether k is an integer kind that the outputs support.
func number(k protoreflect.Kind) bool {
	switch k {
	case protoreflect.Int32Kind, protoreflect.Int64Kind, protoreflect.Uint32Kind, protoreflect.Uint64Kind:
		return true
	}
	return false
}

// messages yields the messages of f as declared.
func messages(f protoreflect.FileDescriptor) iter.Seq[protoreflect.MessageDescriptor] {
	return func(yield func(protoreflect.MessageDescriptor) bool) {
		for i := range f.Messages().Len() {
			if !yield(f.Messages().Get(i)) {
				return
			}
		}
	}
}

// fields yields the fields of m as declared.
func fields(m protoreflect.MessageDescriptor) iter.Seq[protoreflect.FieldDescriptor] {
	return func(yield func(protoreflect.FieldDescriptor) bool) {
		for i := range m.Fields().Len() {
			if !yield(m.Fields().Get(i)) {
				return
			}
		}
	}
}

// byNumber are the fields of m in the order they are encoded.
func byNumber(m protoreflect.MessageDescriptor) []protoreflect.FieldDescriptor {
	return slices.SortedFunc(fields(m), func(a, b protoreflect.FieldDescriptor) int { return cmp.Compare(a.Number(), b.Number()) })
}

// methods yields the methods of f with their full names, "/ds.host.v1.Meta/Describe".
func methods(f protoreflect.FileDescriptor) iter.Seq2[string, protoreflect.MethodDescriptor] {
	return func(yield func(string, protoreflect.MethodDescriptor) bool) {
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for j := range s.Methods().Len() {
				m := s.Methods().Get(j)
				if !yield("/"+string(s.FullName())+"/"+string(m.Name()), m) {
					return
				}
			}
		}
	}
}

// inOneof reports whether f is a member of a oneof that the schema spells out.
func inOneof(f protoreflect.FieldDescriptor) bool {
	return f.ContainingOneof() != nil && !f.ContainingOneof().IsSynthetic()
}

// siblings are the other members of f's oneof.
func siblings(f protoreflect.FieldDescriptor) (out []protoreflect.FieldDescriptor) {
	if !inOneof(f) {
		return nil
	}
	all := f.ContainingOneof().Fields()
	for i := range all.Len() {
		if all.Get(i) != f {
			out = append(out, all.Get(i))
		}
	}
	return out
}

// remark is the comment behind f in the schema, on one line.
func remark(f protoreflect.FieldDescriptor) string {
	text := f.ParentFile().SourceLocations().ByDescriptor(f).TrailingComments
	return strings.Join(strings.Fields(text), " ")
}

// goName is the CamelCase form that protoc-gen-go gives to name; the schema has no name with a leading or
// doubled underscore.
func goName(name protoreflect.Name) string {
	var b strings.Builder
	for word := range strings.SplitSeq(string(name), "_") {
		b.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return b.String()
}
